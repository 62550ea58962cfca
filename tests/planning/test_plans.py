"""Plans: what is wanted, shared, done and still to do, and what it costs; without TensorFlow."""

import dataclasses

import pytest

from ablations.profiles import PAPER, QUICK
from ablations.table2 import STUDY
from ablations.toggles import DEPTH, LS, RESOLUTION
from harness.config import designs, experiment, network
from harness.config.designs import Question
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.config.studies import Row, Study
from harness.planning import plans

NO_CUT = Overrides()
DATA = DatasetInfo("embedded", 8, 512, 240, "ab" * 32)


def plan(study=STUDY, seeds=(0,), held=(), profile=QUICK, cut=NO_CUT):
    def known(run):
        return plans.RunKnowledge(dict(held).get(run.id))

    return plans.plan([study], seeds, lambda _, cell: experiment.complete(cell, profile, DATA, cut, 1), known)


def test_ten_rows_are_ten_runs():
    found = plan()
    assert len(found.runs) == len(found.missing) == 10
    assert found.shared == 0
    assert set(found.protocols.values()) == {"10x3@32"}


def test_seeds_multiply_runs():
    assert len(plan(seeds=range(3)).runs) == 30


def test_equal_rows_share_a_run():
    rows = (Row(1, "a", ()), Row(2, "b", (DEPTH.at(50),)), Row(3, "c", (LS.at(),)))
    found = plan(Study("s", "", (), rows))
    assert (len(found.runs), found.shared, found.runs[0].rows) == (2, 1, ("1", "2"))
    assert found.wanted["s"][1] == found.wanted["s"][2]


def test_what_is_done_is_not_missing_and_costs_nothing():
    first, second = (one.run.id for one in plan().runs[:2])
    found = plan(held={first: frozenset({"10x3@32"}), second: frozenset({"1x1@32"})})
    assert first not in {one.run.id for one in found.missing}
    assert found.runs[0].work == 0
    views = 30 * 240 * network.count(found.runs[1].run.settings).multiply_adds
    assert found.runs[1].work == views
    assert plan().runs[1].work == views + network.training(found.runs[1].run.settings)


def test_rows_under_different_protocols_are_refused():
    rows = (Row(1, "a", ()), Row(2, "b", (RESOLUTION.at(256),)))
    with pytest.raises(SettingsError, match="different protocols cannot share a table: 10x3@32, 10x3@36"):
        plan(Study("s", "", (), rows)).refuse_mixed_protocols()
    plan(Study("s", "", (), rows, crops_differ=True)).refuse_mixed_protocols()


def test_the_papers_cost_is_of_the_right_order():
    kinetics = DatasetInfo("k400", 400, 215_570, 17_706)
    found = plans.plan([STUDY], [0], lambda _, cell: experiment.complete(cell, PAPER, kinetics, replicas=128))
    # By hand for row 1: 3 x 45.5e9 multiply-adds a clip at 224 pixels, 1024 clips, 42,104 steps.
    training = 3 * 45.5e9 * 1024 * 42_104
    evaluation = 30 * 17_706 * 59.456e9
    assert found.runs[0].work == pytest.approx(training + evaluation, rel=0.01)
    assert found.tpu_v3_core_hours == pytest.approx(sum(one.work for one in found.runs) * 2 / 61.5e12 / 3600)


def test_disk_is_that_of_one_training_and_what_the_others_leave():
    one, two = (row.run for row in plan().runs[:2])
    found = plans.plan(
        [dataclasses.replace(STUDY, rows=STUDY.rows[:2])], [0], lambda _, cell: {0: one, 1: two}[len(cell.applied)]
    )
    params = network.count(one.settings).params
    # Two checkpoints are kept and a third written before the first goes: weights and momentum, four bytes each.
    training = 3 * 2 * 4 * params
    assert found.disk({}) == training + 2 * 4 * params
    assert found.kept == 2 * 4 * params
    # What the second run holds helps it and no other.
    assert found.disk({two.id: 100}) == training + 4 * params + 4 * params - 100
    assert found.disk({one.id: 0, two.id: 10**12}) == training + 4 * params


def test_a_run_that_cannot_be_carried_out_is_not_missing():
    bad = plan().runs[2].run.id
    found = plans.plan(
        [STUDY],
        [0],
        lambda _, cell: experiment.complete(cell, QUICK, DATA, NO_CUT, 1),
        lambda run: plans.RunKnowledge(fault="broken" if run.id == bad else ""),
    )
    assert [one.run.id for one in found.faulty] == [bad]
    assert bad not in {one.run.id for one in found.missing}
    assert len(found.missing) == 9


def test_rate_is_none_before_anything_was_measured():
    assert plans.rate([], []) is None
    assert plans.rate([2.0, 2.0], [10.0, 30.0]) == 10.0


def test_several_studies_are_planned_as_one_and_share_their_runs():
    question = Question(STUDY, STUDY.factors, STUDY.base, (0, 1), 4)
    names = ["additive", "reverse", "leave-one-out"]
    studies = [design.study for design in designs.build(names, question)]
    found = plans.plan(studies, [0, 1], lambda _, cell: experiment.complete(cell, QUICK, DATA, NO_CUT, 1))
    # By hand, for each seed: 10 + 9 + 9 rows. The baseline is in two, the full recipe in two, without RandAugment is
    # the study's row 8, without label smoothing the last but one of the reverse order.
    assert (found.count, len(found.runs), found.shared) == (2 * 28, 2 * 24, 2 * 4)
    baseline = found.wanted["table2"][1][0]
    assert found.wanted["reverse"][1] == {0: baseline, 1: found.wanted["table2"][1][1]}
    assert found.runs[0].rows == ("table2 1", "reverse 1")


def test_a_row_with_seeds_of_its_own_is_trained_with_those():
    study = Study("s", "", (), (Row(1, "a", ()), Row(2, "b", (LS.at(),), seeds=(4,))))
    assert {number: list(own) for number, own in plan(study, seeds=(0, 1)).wanted["s"].items()} == {1: [0, 1], 2: [4]}
