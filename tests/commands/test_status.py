"""The commands that look at a queue and steer it, on queues made here, and the tables they draw."""

import io
import json
import shutil

import pytest
import sqlalchemy
from click.testing import CliRunner
from rich.console import Console

from harness import cancel, retry, status
from harness.scheduler import looking, monitor, monitor_table, optuna_storage
from harness.scheduler.run_queue import Queue
from harness.scheduler.run_states import Attempt, Item

COMMANDS = {"status": status.main, "cancel": cancel.main, "retry": retry.main}
STUDY = "table2 quick"
KEYS = [letter * 16 for letter in "abcd"]


def items():
    return [Item(key, f"row {row}: {key[0]}", STUDY, row, "", 600.0) for row, key in enumerate(KEYS, start=1)]


def about(wanted):
    runs = [[one.key, one.label, one.work, one.order, one.parent] for one in wanted]
    rows = {f"table2 {one.order}, seed 0": f"{one.key} 10x3@32" for one in wanted}
    return {"began": "2030-01-01T00:00:00+00:00", "retries": 0, "runs": runs, "recorded": [], "rows": rows}


def claimed(queue, item):
    queue.reconcile([item], set, 0)
    return queue.claim()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Databases to be copied: an empty queue, and one of a study whose row 1 is done, 2 failed, 3 runs and 4 waits."""
    folder, wanted = tmp_path_factory.mktemp("made"), items()
    Queue(optuna_storage.url_of(folder / "empty.db"), lease=3600)
    shutil.copy(folder / "empty.db", folder / "study.db")
    queue = Queue(optuna_storage.url_of(folder / "study.db"))
    queue.keep(f"study {STUDY}", about(wanted))
    claimed(queue, wanted[0]).done(0.25)
    claimed(queue, wanted[1]).failed("loss is nan", "Traceback")
    with claimed(queue, wanted[2]):
        pass
    queue.add(wanted[3])
    return folder


@pytest.fixture
def results(made, tmp_path):
    shutil.copy(made / "study.db", tmp_path / "queue.db")
    return tmp_path


@pytest.fixture
def empty(made, tmp_path):
    shutil.copy(made / "empty.db", tmp_path / "queue.db")
    return tmp_path


def call(name, *words, folder):
    given = [*words, "--results", str(folder)]
    return CliRunner().invoke(COMMANDS[name], given, env={"COLUMNS": "160", "HARNESS_STORAGE": None})


def states(folder):
    """State of each row, as the lists of a study's queue say it to a worker."""
    queue = Queue(optuna_storage.url_of(folder / "queue.db"))
    (group,) = monitor.groups(queue.notes(), queue.attempts())
    return [row.state for row in group.rows]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_examples_and_exit_codes(name):
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert result.exit_code == 0
    assert f"python -m harness.{name}" in result.output
    assert "Exit codes: 0 " in result.output
    assert "HARNESS_STORAGE" in result.output


def test_status_shows_every_row(results):
    result = call("status", folder=results)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == STUDY
    assert lines[2].split()[:5] == ["1:", "a", "done,", "top-1", "25.0"]
    assert lines[3].split()[:3] == ["2:", "b", "failed"]
    assert lines[4].split()[:3] == ["3:", "c", "starting"]
    assert lines[5].split()[:3] == ["4:", "d", "waiting"]
    assert "  row 2: b: loss is nan" in lines
    assert any(line.startswith("1 of 4 done, 1 running, 1 failed, 1 waiting") for line in lines)


def test_status_as_json(results):
    found = json.loads(call("status", "--json", folder=results).output)
    (study,) = found["studies"]
    assert (found["settled"], study["name"], study["runs"]) == (False, STUDY, 4)
    assert [row["state"] for row in study["rows"]] == ["done", "failed", "running", "waiting"]
    assert [row["top1"] for row in study["rows"]] == [0.25, None, None, None]
    assert (study["rows"][1]["error"], study["rows"][1]["traceback"]) == ("loss is nan", "Traceback")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("there", [False, True])
def test_looking_where_nothing_was_begun_makes_nothing(name, there, tmp_path):
    """Neither where there is no file nor in somebody else's database."""
    if there:
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/queue.db")
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table theirs (x integer)"))
        engine.dispose()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = call(name, *([] if name == "status" else ["3"]), folder=tmp_path)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "queue.db: nothing was begun here; start a worker: " in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_storage_that_cannot_be_reached_is_one_line_without_its_password():
    result = CliRunner().invoke(status.main, ["--storage", "postgresql+psycopg://me:topsecret@127.0.0.1:1/x"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "topsecret" not in result.stderr
    assert "127.0.0.1:1/x" in result.stderr


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("status", ["--study", "x"], "--study x: is not in the queue; expected one of table2 quick"),
        ("status", ["--json", "--watch"], "--json: one look; leave out --watch"),
        ("cancel", ["9"], "9: is no row or run in the queue; python -m harness.status shows them"),
        ("cancel", ["1"], "row 1: a (aaaaaaaaaaaaaaaa): is done; python -m harness.status"),
        ("cancel", ["4", "2"], "row 2: b (bbbbbbbbbbbbbbbb): has failed"),
        ("retry", ["4"], "row 4: d (dddddddddddddddd): waits already; start a worker: "),
        ("retry", ["2", "1"], "row 1: a (aaaaaaaaaaaaaaaa): is done; "),
        ("retry", [], "name rows or runs, or --failed"),
        ("retry", ["2", "--failed"], "name rows or runs, or --failed"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(name, words, message, results):
    before = states(results)
    result = call(name, *words, folder=results)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert states(results) == before


def test_cancel_ends_what_waits_and_what_runs(results):
    result = call("cancel", "3", "dddd", folder=results)
    assert result.exit_code == 0
    assert "row 4: d (dddddddddddddddd): cancelled\n" in result.output
    assert "python -m harness.retry takes a cancelled run back." in result.output
    assert states(results) == ["done", "failed", "cancelled", "cancelled"]


def test_a_cancelled_run_is_lost_to_its_worker(empty):
    queue, item = Queue(optuna_storage.url_of(empty / "queue.db")), items()[0]
    queue.keep(f"study {STUDY}", about([item]))
    lease = claimed(queue, item)
    assert lease.held(now=True)
    with lease:
        call("cancel", "1", folder=empty)
        assert not lease.held(now=True)
    assert lease.cancelled
    assert claimed(queue, item) is None


def test_what_nobody_has_put_into_the_queue_yet_can_be_cancelled(empty):
    queue = Queue(optuna_storage.url_of(empty / "queue.db"))
    queue.keep(f"study {STUDY}", about(items()))
    assert call("cancel", "table2 2", folder=empty).exit_code == 0
    assert states(empty) == ["waiting", "cancelled", "waiting", "waiting"]


def test_runs_that_start_from_a_cancelled_one_are_told(empty):
    queue, (first, *_) = Queue(optuna_storage.url_of(empty / "queue.db")), items()
    child = Item(KEYS[1], "row 2: b", STUDY, 2, first.key, 600.0)
    queue.keep(f"study {STUDY}", about([first, child]))
    assert "Blocked, since they start from there: 1 run." in call("cancel", "1", folder=empty).output
    assert states(empty) == ["cancelled", "blocked"]
    result = call("retry", "2", folder=empty)
    assert "is blocked: the run it starts from, aaaaaaaa, was cancelled; python -m harness.retry" in result.stderr


def test_retry_lets_it_wait_again(results):
    call("cancel", "4", folder=results)
    assert "row 4: d (dddddddddddddddd): waits again" in call("retry", "4", folder=results).output
    result = call("retry", "--failed", folder=results)
    assert "row 2: b (bbbbbbbbbbbbbbbb): waits again" in result.output
    assert states(results) == ["done", "waiting", "running", "waiting"]
    assert call("retry", "--failed", folder=results).output == "Nothing failed.\n"


def test_failures_before_a_retry_do_not_count_any_more(results):
    """No failure is forgiven here, and the attempt that was asked for was preempted."""
    call("retry", "2", folder=results)
    claimed(Queue(optuna_storage.url_of(results / "queue.db")), items()[1]).preempted("SIGTERM")
    assert states(results)[1] == "waiting"


def test_retry_says_what_to_start_where_nobody_is_at_it(results):
    assert "Taken up by a worker that is at the study now (" in call("retry", "2", folder=results).output
    call("cancel", "3", folder=results)
    assert "Nobody is at it; start a worker: " in call("retry", "3", folder=results).output


def watched(results, monkeypatch, *turns):
    """Output and exit code of --watch, with what happens between its looks in place of the time between them."""
    happens = iter(turns)
    monkeypatch.setattr(status, "_pause", lambda: next(happens)())
    return call("status", "--watch", folder=results)


def test_watch_prints_again_only_what_changed_and_ends_when_all_is_settled(results, monkeypatch):
    def settle():
        call("cancel", "3", "4", folder=results)

    result = watched(results, monkeypatch, lambda: None, lambda: None, settle)
    assert result.exit_code == 1  # row 2 failed
    assert result.output.count(f"{STUDY}\n") == 2
    assert "1 of 4 done, 1 failed, 2 cancelled" in result.output


def test_watch_of_what_went_well_exits_with_0(results, monkeypatch):
    queue = Queue(optuna_storage.url_of(results / "queue.db"))
    queue.keep(f"study {STUDY}", about(items()[:1]))
    queue.end(2, "cancelled")
    queue.end(3, "cancelled")
    assert CliRunner().invoke(
        status.main, ["--watch", "--study", STUDY, "--results", str(results)], env={"COLUMNS": "80"}
    ).exit_code == 0  # fmt: skip


def test_watch_ends_with_ctrl_c(results, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    result = watched(results, monkeypatch, interrupted)
    assert result.exit_code == 130
    assert result.output.count(f"{STUDY}\n") == 1
    assert result.stderr == ""


def test_workers_that_vanished_do_not_look_alive(results):
    """Their last sign of life is set back by a day."""
    engine = sqlalchemy.create_engine(f"sqlite:///{results}/queue.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = datetime('now', '-1 day')"))
    engine.dispose()
    (study,) = json.loads(call("status", "--json", folder=results).output)["studies"]
    row = study["rows"][2]
    assert (row["state"], row["worker"], row["stale"], study["workers"]) == ("waiting", None, 1, 0)


def drawn(groups, width, height=None):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(monitor_table.draw(groups, width, height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def long_study(name="s", rows=300):
    """Row 1 done, 100 failed, 200 at it, all others waiting."""
    changes = "ls sd wd ep sj se dstem depth=101"
    own = [Item(f"{name}{row:015d}", f"row {row}: {changes}", name, row) for row in range(1, rows + 1)]
    states = {1: "done", 100: "failed", 200: "running"}
    progress = {"stage": "train", "step": 123_456, "total": 269_462, "trained": 123_456, "start": 0}
    attempts = [
        Attempt(
            row - 1, own[row - 1], states[row], worker="node-of-a-cluster-with-a-long-name:4123", seconds=36_000.0,
            error="loss is nan" * (row == 100), progress=progress,
        )
        for row in states
    ]  # fmt: skip
    kept = {**about([]), "runs": [[one.key, one.label, one.work, one.order, one.parent] for one in own], "rows": {}}
    return monitor.groups({f"study {name}": kept}, attempts)


@pytest.mark.parametrize("width", [80, 100, 130])
@pytest.mark.parametrize("height", [15, 24, 60])
def test_a_long_study_fits_a_terminal_and_shows_what_matters(width, height):
    lines = drawn(long_study(), width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    shown = [line.split(":")[0] for line in lines if line[:1].isdigit() and ": ls" in line]
    assert {"100", "200"} <= set(shown)
    assert "1" not in shown
    (more,) = [line for line in lines if line.startswith("... and")]
    assert more == f"... and {300 - 1 - len(shown):,} more waiting, 1 done"


def test_a_narrow_terminal_cuts_workers_and_names_before_states():
    (line,) = [line for line in drawn(long_study(), 80, 24) if line.startswith("200: ")]
    assert "training, 46 %" in line
    assert line.endswith("…ong-name:4123")
    (line,) = [line for line in drawn(long_study(), 160, 24) if line.startswith("200: ")]
    assert "200: ls sd wd ep sj se dstem depth=101  training, 123,456 of 269,462, 46 %" in line
    assert "node-of-a-cluster-with-a-long-name:4123" in line


def test_without_a_height_every_row_is_there():
    assert sum(": ls" in line for line in drawn(long_study(), 120)) == 300 + 1  # and an error


def test_settled_studies_make_room_for_others():
    item = Item("a" * 16, "row 1: old", "old", 1)
    (old,) = monitor.groups({"study old": about([item])}, [Attempt(0, item, "done", worker="w", seconds=7200.0)])
    lines = drawn([old, *long_study()], 100, 24)
    assert lines[:4] == ["old", "1 of 1 done; 2.0 h spent", "", "s"]
    assert len(lines) <= 24


def test_opening_a_queue_to_look_leaves_it_as_it_is(results):
    before = (results / "queue.db").read_bytes()
    groups = looking.look(looking.open_queue(None, results))
    assert [row.state for row in groups[0].rows] == ["done", "failed", "running", "waiting"]
    assert (results / "queue.db").read_bytes() == before
