"""What is said while a study runs, and how its table is shown, in wide, narrow and no terminals."""

import io

import pytest
from rich.console import Console

from ablations.profiles import QUICK
from ablations.table2 import STUDY
from harness.config import experiment
from harness.config.experiment import DatasetInfo
from harness.planning import plans
from harness.reporting import study_tables, terminal
from harness.scheduler import progress
from harness.system import text
from tests.support import summaries

DATA = DatasetInfo("embedded", 8, 512, 240, "ab" * 32)
TRAIN = {"event": "train", "done": 5, "total": 10, "step": 5, "loss": 1.234, "top1": 0.5}
DONE = {"event": "done", "top1": 0.75, "top5": 1.0, "videos": 240}


@pytest.fixture
def plan():
    return plans.plan([STUDY], [0], lambda _, cell: experiment.complete(cell, QUICK, DATA, replicas=1))


def out(width, is_terminal):
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)


def test_lines_say_each_stage_once(plan):
    said = out(200, False)
    with progress.progress_view(progress.ProgressState(plan, 1e10), said) as view:
        for event in ({"event": "build"}, TRAIN, TRAIN, {**TRAIN, "event": "validation"}, DONE):
            view.event(plan.runs[1].run.id, event)
    lines = said.file.getvalue().splitlines()
    assert [line.split(": ")[2].split(" after")[0] for line in lines] == [
        "building",
        "training",
        "step 5, validation loss 1.23, top-1 50.0 %",
        "done",
    ]
    assert "row 2: ls" in lines[0]
    assert "to go" in lines[-1]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_live_table_shows_the_last_metrics_at_any_width(plan, width):
    screen = out(width, True)
    board = progress.ProgressState(plan, 1e10)
    view = progress.LiveProgress(board, screen)
    view.event(plan.runs[9].run.id, TRAIN)
    screen.print(view._draw())
    text = screen.file.getvalue()
    assert "step 5, train loss 1.23" in text
    assert "0 of 10 runs done, about" in text


def test_time_to_go_is_unknown_until_something_was_measured(plan):
    board = progress.ProgressState(plan, None)
    assert board.remaining is None
    board.update(plan.runs[0].run.id, TRAIN)
    board.update(plan.runs[0].run.id, DONE)
    assert board.remaining > 0


@pytest.mark.parametrize("width", [80, 120, 220])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_number_and_no_word_of_the_caption_is_cut(width, is_terminal):
    said = out(width, is_terminal)
    terminal.show([study_tables.additive(summaries.summary())], ["row 3: boom"], said)
    text = " ".join(said.file.getvalue().split())
    assert " ".join(summaries.CAPTION.split()) in text
    for shown in ("74.4", "81.0 (+0.3)", "350-EP", "FAILED row 3: boom"):
        assert shown in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "-"), (42, "42 s"), (300, "5 min"), (3600 * 3, "3.0 h"), (99.4, "99 s")]
)
def test_duration(seconds, words):
    assert text.duration(seconds) == words
