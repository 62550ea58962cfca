"""What a plan and a finished run are said to be: their stages, what they start from, and counts that add up."""

import dataclasses
import io
import shutil

import pytest
from rich.console import Console

from ablations.profiles import QUICK
from ablations.stages import CVRL, FINETUNE, LINEAR, PRETRAIN
from ablations.toggles import SE
from harness.cli import describing, synthetic
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides
from harness.config.studies import Row, Study
from harness.planning import workspace
from harness.store.run_store import Store

TARGET = DatasetInfo("clips", 8, 128, 240, "ab" * 32)
NAMESAKE = DatasetInfo("clips", 9, 512, 240, "cd" * 32)
ROWS = (
    Row(1, "random", (), stages=(LINEAR,)),
    Row(2, "contrasted", (), follows=1, stages=(CVRL, LINEAR)),
    Row(3, "with squeeze", (SE.at(),), follows=2, stages=(CVRL, LINEAR)),
    Row(4, "tuned", (), stages=(PRETRAIN, FINETUNE)),
)
STUDY = Study("own", "Chains", (SE,), ROWS)


@pytest.fixture
def place(tmp_path):
    target, other = (workspace.DataSet(facts, None, None, ready=True) for facts in (TARGET, NAMESAKE))
    store = Store(tmp_path / "results")
    return workspace.Workspace(QUICK, target, Overrides(), 1, store, Devices(), pre_training=other, repeat_short=True)


@pytest.fixture
def finished(place):
    """All seven runs of the chains, recorded."""
    synthetic.write_synthetic(place, [STUDY], 7)
    return place


def told(say, *about):
    out = io.StringIO()
    say(*about, Console(file=out, width=500))
    return out.getvalue()


def described(place, study=STUDY):
    return told(describing.describe, place, place.plan([study], [0]))


def test_two_data_sets_of_one_name_are_two(place):
    lines = [line for line in described(place).splitlines() if line.startswith("Data: ")]
    assert lines == [
        "Data: clips, 128 training and 240 validation videos of 8 classes.",
        "Data: clips, 512 training and 240 validation videos of 9 classes.",
    ]


def test_what_nobody_needs_any_more_is_not_counted_as_done(finished):
    assert "saved 0 that rows share, done 7, to do 0; " in described(finished)
    plan = finished.plan([STUDY], [0])
    for one in plan.runs:
        if not one.run.evaluated and one.rows in (("2",), ("3",)):
            shutil.rmtree(finished.store.folder(one.run.id))
    text = described(dataclasses.replace(finished, store=Store(finished.store.root)))
    # By hand: of seven runs two were removed, and what started from them is done.
    assert text.count("not needed  ") == 2
    assert "saved 0 that rows share, done 5, not needed 2, to do 0; " in text


def test_a_finished_run_says_its_stage_and_what_it_started_from(finished):
    plan = finished.plan([STUDY], [0])
    first = {one.rows[0]: one.run.id for one in plan.runs if not one.run.evaluated}
    last = plan.wanted["own"]

    def line(run_id):
        return told(describing.describe_results, finished.store, run_id).splitlines()[0]

    common = "depth=50 frames=32 resolution=224 seed=0"
    assert line(last[1][0]).endswith(f": {common}, linear evaluation, starts from its seed, profile quick")
    started = f"starts from run {first['2'][:8]} (self-supervised pre-training)"
    assert line(last[2][0]).endswith(f": {common}, linear evaluation, {started}, profile quick")
    assert line(last[4][0]).endswith(f": {common}, starts from run {first['4'][:8]} (pre-training), profile quick")
    assert line(first["2"]).endswith(f": {common}, self-supervised pre-training, starts from its seed, profile quick")
    shutil.rmtree(finished.store.folder(first["2"]))
    assert f"starts from run {first['2'][:8]}, whose record is not there any more, profile" in line(last[2][0])
    synthetic.write_synthetic(finished, [Study("plain", "", (), (Row(1, "", ()),))], 1)
    (plain,) = set(finished.store.ids()) - {one.run.id for one in plan.runs}
    assert line(plain) == f"Run {plain}: {common}, profile quick"


def test_a_plan_says_what_a_run_starts_from_that_is_no_part_of_it(finished):
    before = next(one.run for one in finished.plan([STUDY], [0]).runs if one.rows == ("4",))
    own = Study("train", "One run", (), (Row(1, "", ()),))
    text = described(dataclasses.replace(finished, parent=before.identity), own)
    assert f": baseline, starts from run {before.id[:8]} (pre-training)\n" in text
    assert "starts from" not in described(finished, own)
    assert "starts from" not in described(finished), "where it is listed above"
