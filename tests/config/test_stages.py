"""Chains: what a stage makes of the settings, which runs a row wants, which of them rows share; no TensorFlow."""

import dataclasses
import math
import re

import pytest

from ablations import datasets, table5
from ablations.profiles import PAPER, QUICK
from ablations.stages import CVRL, FINETUNE, LINEAR, PRETRAIN
from ablations.toggles import BACKBONE, EP, LS, OPTIMIZER, RA, SD, SE, WD
from harness.config import experiment, stages
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.config.stages import Stage
from harness.config.studies import Cell, Row, Study
from harness.config.toggles import PaperAmount, ToggleError
from harness.data import embedded
from harness.planning import labels as labels_
from harness.planning import plans, workspace
from harness.planning.plans import RunKnowledge
from harness.scheduler import sharing
from harness.store import excerpts
from harness.store.run_store import Store

RATE = f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate"
DECAY = f"{OPTIMIZER}.learning_rate.cosine.decay_steps"
WARMUP = f"{OPTIMIZER}.warmup.linear.warmup_steps"
KINETICS = DatasetInfo("four", 400, 215_570, 17_706, "ab" * 32)
KINETICS_600 = DatasetInfo("six", 600, 366_016, 27_780, "cd" * 32)
WEB = DatasetInfo("web", 700, 70_000_000, 7_000, "ef" * 32)
CHAIN = (PRETRAIN, FINETUNE)


def place(root, profile=PAPER, cut=Overrides()):  # noqa: B008 - frozen
    first, further, web = (workspace.DataSet(facts, None, None, ready=True) for facts in (KINETICS, KINETICS_600, WEB))
    return workspace.Workspace(
        profile, first, cut, 128, Store(root), Devices(), further=(further,), pre_training=web, repeat_short=True
    )


def study(*rows, **more):
    return Study("s", "", (), rows, **more)


def test_a_chain_is_trained_as_the_paper_says(tmp_path):
    run = place(tmp_path).complete(Cell((LS.at(), RA.at()), 3, CHAIN))
    before = run.start
    assert (before.data, run.data) == (WEB, KINETICS)
    assert (before.parent, run.parent, before.seed, run.seed) == (None, before.identity, 3, 3)
    # By hand: 4 and a tenth of an epoch of 70 million clips, 1024 at a time.
    assert before.settings["trainer.train_steps"] == before.settings[DECAY] == math.ceil(4 * 70e6 / 1024) == 273_438
    assert before.settings[WARMUP] == math.ceil(7e6 / 1024)
    assert (before.settings[RATE], run.settings[RATE]) == (1.6, 0.05)
    assert run.settings["trainer.train_steps"] == run.settings[DECAY] == 10_000
    assert run.settings[WARMUP] == 250
    classes = [one.settings["task.train_data.num_classes"] for one in run.chain]
    assert classes == [700, 400]
    assert [one.settings["task.losses.label_smoothing"] for one in run.chain] == [0.1, 0.1]
    assert [one.settings["task.train_data.aug_type"] is None for one in run.chain] == [True, False]
    assert run.settings["task.init_checkpoint_modules"] == "backbone"
    assert [one.evaluated for one in run.chain] == [False, True]


def test_a_stage_changes_its_own_fields_and_no_others():
    plain, fine = (experiment.complete(Cell((), 0, stages_), PAPER, KINETICS) for stages_ in ((), (FINETUNE,)))
    found = experiment.difference(plain.settings, fine.settings)
    assert set(found) == {"trainer.train_steps", DECAY, WARMUP, RATE, "task.init_checkpoint_modules"}


def test_a_stage_has_the_last_word_and_a_record_does_not_name_what_it_overrules():
    run = experiment.complete(Cell((SE.at(), LS.at(), SD.at()), 0, (LINEAR,)), PAPER, KINETICS)
    assert run.settings[f"{BACKBONE}.stochastic_depth_drop_rate"] == 0
    assert run.settings["task.freeze_backbone"] is True
    assert [one.toggle.key for one in run.cell.toggles] == ["se"]
    assert run.parent is None, "on a network as it was initialised"


def test_a_stage_may_lack_fields_and_have_its_own():
    own = Stage("own", "own", "", "", {"trainer.optimizer_config.optimizer.type": "lars"},
                removes=("trainer.optimizer_config.optimizer.sgd.",))  # fmt: skip
    settings = experiment.complete(Cell((), 0, (own,)), PAPER, KINETICS).settings
    assert not [field for field in settings if ".sgd." in field]
    assert settings["trainer.optimizer_config.optimizer.type"] == "lars"


def test_a_toggle_that_changes_nothing_is_refused():
    with pytest.raises(ToggleError, match=r"^toggle ep changes nothing: pre-training and fine-tuning set all that it"):
        Row(1, "", (LS.at(), EP.at()), stages=CHAIN)
    Row(1, "", (LS.at(), RA.at()), stages=CHAIN)  # fine-tuning has it
    with pytest.raises(ToggleError, match=r"^toggle ra changes nothing: pre-training set"):
        stages.refuse_idle((RA.at(),), (PRETRAIN,))
    with pytest.raises(ToggleError, match=r"^row 1: 'finetune' is no stage: expected such as FINETUNE"):
        Row(1, "", (), stages=("finetune",))
    with pytest.raises(ToggleError, match=r"^stage x: dataset 'WVT': expected None or 'pre-training'"):
        Stage("x", "x", "", "", {}, dataset="WVT")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((PRETRAIN,), "ends with pre-training (pre-training), which is not evaluated: expected a last stage that is"),
        ((LINEAR, CVRL), "ends with self-supervised pre-training (linear evaluation, self-supervised pre-training)"),
        (FINETUNE, "stages is finetune alone: expected a sequence of them, such as (PRETRAIN, FINETUNE)"),
        ((PRETRAIN, "finetune"), "'finetune' is no stage"),
    ],
)
def test_a_row_ends_with_a_stage_that_gives_a_number(wrong, said):
    with pytest.raises(ToggleError, match=f"^row 3: {re.escape(said)}[^\n]*$"):
        Row(3, "", (), stages=wrong)


def test_a_row_follows_one_on_the_same_data():
    rows = (Row(1, "", ()), Row(2, "", (LS.at(),), follows=1, dataset="Kinetics-600"))
    with pytest.raises(ToggleError, match="row 2 follows row 1: expected a row on Kinetics-600 too"):
        study(*rows).check()


def test_rows_share_the_stages_they_have_in_common(tmp_path):
    rows = (
        Row(1, "", (SE.at(), RA.at()), stages=CHAIN),
        Row(2, "", (SE.at(),), stages=CHAIN, dataset="Kinetics-600"),
        Row(3, "", (SE.at(), WD.at()), stages=CHAIN),
        Row(4, "", (SE.at(),), stages=(PRETRAIN, LINEAR)),
        Row(5, "", (SE.at(),), stages=(LINEAR,)),
    )
    found = place(tmp_path).plan([study(*rows)], [0])
    # By hand: RandAugment is no part of pre-training, so rows 1, 2 and 4 start from one run; weight decay is.
    assert (found.count, len(found.runs), found.shared) == (9, 7, 2)
    assert [(one.rows, one.run.cell.stage.key) for one in found.runs] == [
        (("1", "2", "4"), "pretrain"),
        (("1",), "finetune"),
        (("2",), "finetune"),
        (("3",), "pretrain"),
        (("3",), "finetune"),
        (("4",), "linear"),
        (("5",), "linear"),
    ]
    assert [found.times[one.run.id] for one in found.runs] == [3, 1, 1, 1, 1, 1, 1]
    order = [one.run.identity for one in found.runs]
    for one in found.runs:
        assert one.run.parent is None or order.index(one.run.parent) < order.index(one.run.identity)
    assert {one.run.data for one in found.runs if one.rows == ("2",)} == {KINETICS_600}
    labels = [labels_.label(one) for one in found.runs]
    assert "row 1, 2 and 1 more (pre-training): se" in labels
    assert "row 5 (linear evaluation): se" in labels


def test_the_queue_is_told_what_a_run_waits_for(tmp_path):
    found = place(tmp_path).plan([study(Row(1, "", (), stages=CHAIN))], [0])
    before, after = sharing.items(found, "s")
    assert (before.parent, after.parent) == ("", before.key)
    assert before.work > 0


def test_every_seed_has_a_chain_of_its_own(tmp_path):
    here = place(tmp_path)
    found = here.plan([study(Row(1, "", (), stages=CHAIN))], [0, 1, 2])
    assert len(found.runs) == 6
    for seed, run_id in found.wanted["s"][1].items():
        run = here.complete(Cell((), seed, CHAIN))
        assert run.id == run_id == excerpts.seeded(here.complete(Cell((), 7, CHAIN)), seed).id
        assert {link.seed for link in run.chain} == {seed}


def test_a_stage_that_is_only_started_from_is_done_once_it_is_trained(tmp_path):
    plain = place(tmp_path).plan([study(Row(1, "", (), stages=CHAIN))], [0])
    first, last = (one.run for one in plain.runs)

    def planned(known):
        return plans.plan([study(Row(1, "", (), stages=CHAIN))], [0], lambda _, __: last, lambda run: known[run.id])

    found = planned({first.id: RunKnowledge(frozenset()), last.id: RunKnowledge()})
    assert [one.run for one in found.missing] == [last]
    assert found.runs[0].work == 0
    assert found.missing[0].work == plain.runs[1].work
    gone = planned({first.id: RunKnowledge(), last.id: RunKnowledge(frozenset({last.protocol.name}))})
    assert gone.missing == (), "its record was removed, and nothing is left to start from it"
    alone = plans.plan([study(Row(1, "", ()))], [0], lambda _, __: first)
    assert [one.run for one in alone.missing] == [first], "who asks for it wants it"
    lost = planned({first.id: RunKnowledge(fault="is damaged"), last.id: RunKnowledge()})
    assert lost.missing == ()
    assert lost.faulty[1].fault == f"starts from run {first.id[:8]}: is damaged"
    kept = planned({first.id: RunKnowledge(fault="is damaged"), last.id: RunKnowledge(frozenset({last.protocol.name}))})
    assert [one.run for one in kept.faulty] == [first], "what it left is not needed any more"


def test_a_run_that_one_row_starts_from_and_another_shows_is_evaluated(tmp_path):
    first = Stage("first", "first", "", "", {}, evaluated=False)
    for order in ((1, 2), (2, 1)):
        rows = {1: Row(1, "", (), stages=(first, FINETUNE)), 2: Row(2, "", ())}
        found = place(tmp_path).plan([study(*(rows[number] for number in order))], [0])
        assert (len(found.runs), found.shared) == (2, 1)
        (shared,) = (one for one in found.runs if set(one.rows) == {"1", "2"})
        assert shared.run.evaluated
        assert not shared.evaluated


def test_a_row_alone_needs_what_it_starts_from(tmp_path):
    rows = (Row(1, "", ()), Row(2, "", (), stages=CHAIN))
    found = place(tmp_path).plan([study(*rows)], [0])
    assert len(found.only([2]).runs) == 2
    assert len(found.only([1]).runs) == 1


def test_cuts_hold_for_every_stage(tmp_path):
    run = place(tmp_path, cut=Overrides(steps=5, batch=256)).complete(Cell((), 0, CHAIN))
    assert [one.settings["trainer.train_steps"] for one in run.chain] == [5, 5]
    assert [one.settings[experiment.TRAIN_BATCH] for one in run.chain] == [256, 256]


def test_a_chain_without_its_data_set_is_refused_in_one_line(tmp_path):
    here = dataclasses.replace(place(tmp_path), pre_training=None)
    with pytest.raises(SettingsError, match="four: a chain that pre-trains needs --pretrain-data DIR"):
        here.complete(Cell((), 0, CHAIN))


def test_a_batch_is_not_counted_in_epochs():
    own = Stage("own", "own", "", "", {experiment.TRAIN_BATCH: PaperAmount("epochs", 1)})
    with pytest.raises(SettingsError, match="the batch, by which epochs are counted"):
        experiment.complete(Cell((), 0, (own,)), PAPER, KINETICS)


def test_table_5_compares_each_chain_with_the_paper_s_own_row_from_scratch(tmp_path):
    from ablations import table3, table4

    found = place(tmp_path).plan([table5.STUDY, table3.STUDY, table4.STUDY], [0])
    wanted = found.wanted
    assert wanted["table5"][1] == wanted["table3"][6], "81.0 %"
    assert wanted["table5"][3] == wanted["table4"][2], "83.8 %"
    table5.STUDY.check()
    # By hand: four rows, of which two share a pre-training; Table 3 has five others, Table 4 one.
    assert (found.count, len(found.runs), found.shared) == (6 + 6 + 2, 11, 3)


def test_a_study_stands_on_its_own_generated_set_unless_another_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "content_fingerprint", lambda spec: spec.name.ljust(64, "."))
    rows = (Row(1, "", ()), Row(2, "", (), stages=CHAIN))

    def sets(*studies, data=None):
        made = workspace.data_set(data, QUICK, tmp_path)
        here = workspace.Workspace(QUICK, made, Overrides(), 1, Store(tmp_path), Devices())
        found = here.plan(studies, [0])
        assert [here.data_of(one.run).facts for one in found.runs] == [one.run.data for one in found.runs]
        return [one.run.data.name for one in found.runs]

    assert sets(study(*rows, stand_in="embedded-few")) == ["embedded-few", "embedded-other", "embedded-few"]
    assert sets(study(*rows)) == ["embedded", "embedded-other", "embedded"]
    assert sets(study(*rows), data="embedded-few") == ["embedded-few", "embedded-other", "embedded-few"]


def test_the_quick_profile_has_sets_for_it_of_other_motion_and_of_few_labels():
    few, other = datasets.FEW_LABELS, datasets.OTHER_MOTION
    assert not set(few.classes) & set(other.classes)
    assert len(few.classes) != len(other.classes), "a head that fits would hide that it is taken"
    assert few.train_videos < datasets.EMBEDDED.train_videos == other.train_videos
    assert few.validation_videos == datasets.EMBEDDED.validation_videos


def test_chains_are_named_in_words():
    assert stages.stage_names(CHAIN) == "pre-training, fine-tuning"
    assert str(Cell((LS.at(),), 1, CHAIN)) == "ls (fine-tuning) seed=1"
    assert QUICK.units["stage_epochs"][4] > 0
