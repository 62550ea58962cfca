"""Which programs runs are: equal where nothing that shapes a step differs, by hand for the paper's Table 2.

The paper's training: 1,024 clips on 128 cores, 8 a core, 16 frames of 224 x 224 pixels; a video is evaluated in 30
views of 256 x 256. Nothing is compiled, and TensorFlow is not needed.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import harness
from ablations import table2, table3, table5, table6
from ablations.datasets import KINETICS_400, KINETICS_600
from ablations.profiles import PAPER, QUICK
from ablations.toggles import DEPTH, DSTEM, EMA, EP, FRAMES, LS, OPTIMIZER, R3D_RS, RA, RESOLUTION, SD, SE, SJ, WD
from harness.accelerators import programs
from harness.config import experiment, network
from harness.config.devices import Devices
from harness.config.experiment import Overrides, SettingsError
from harness.config.studies import Cell
from harness.planning import workspace
from harness.planning.workspace import Workspace
from harness.store.run_store import Store

CORES = 128
NO_CUT = Overrides()


def made(root, **changes):
    """The paper's training of the paper's data sets, on as many replicas as a slice of 64 TPU v3 has cores."""
    first, *further = workspace.papers()
    place = Workspace(PAPER, first, NO_CUT, CORES, Store(root), Devices(), further=tuple(further))
    return dataclasses.replace(place, **changes)


def run_of(*applied, seed=0, data=KINETICS_400, cut=NO_CUT, replicas=CORES):
    return experiment.complete(Cell(applied, seed), PAPER, data, cut, replicas)


def pair(*applied, cores=CORES, **changes):
    """The train step and the evaluation step of a run with some toggles."""
    return programs.of_run(run_of(*applied, replicas=cores, **changes), cores)


def with_settings(changes):
    """The baseline's programs with other values of some settings."""
    run = run_of()
    assert changes.keys() <= run.settings.keys()
    return programs.of_run(dataclasses.replace(run, settings={**run.settings, **changes}), CORES)


def are_others(found):
    """Of the train step and of the evaluation step, whether it is another than the baseline's."""
    same_shape = [one.shape == other.shape for one, other in zip(found, pair(), strict=True)]
    same_key = [one.key == other.key for one, other in zip(found, pair(), strict=True)]
    assert same_shape == same_key
    return tuple(not one for one in same_key)


def sharing(runs, kind):
    """The rows that share a program, in the order of the rows."""
    rows = {}
    for one in runs:
        (program,) = (two for two in programs.of_run(one.run, CORES) if two.kind == kind)
        rows.setdefault(program.key, []).append(one.rows[0])
    return [" ".join(own) for own in rows.values()]


def test_table_2_is_7_train_steps_and_4_evaluations(tmp_path):
    runs = made(tmp_path).plan([table2.STUDY], [0]).runs
    # Epochs and scale jittering change the schedule and the data; RandAugment the data.
    assert sharing(runs, "train") == ["1", "2", "3", "4 5 6", "7", "8", "9 10"]
    # An evaluation knows nothing of the loss, of stochastic depth and of weight decay either.
    assert sharing(runs, "evaluation") == ["1 2 3 4 5 6", "7", "8", "9 10"]
    found = programs.distinct((one.run for one in runs), CORES)
    assert [(one.kind, len(one.run.cell.applied)) for one in found.values()] == [
        ("train", 0), ("evaluation", 0), ("train", 1), ("train", 2), ("train", 3), ("train", 6), ("evaluation", 6),
        ("train", 7), ("evaluation", 7), ("train", 9), ("evaluation", 9),
    ]  # fmt: skip
    assert all(key == one.key for key, one in found.items())
    assert {(one.clips, one.cores) for one in found.values()} == {(8, CORES), (1, CORES)}


def test_seeds_share_their_programs(tmp_path):
    place = made(tmp_path)
    found = [programs.distinct((one.run for one in place.plan([table2.STUDY], range(n)).runs), CORES) for n in (1, 3)]
    assert list(found[0]) == list(found[1])


def test_table_3_after_table_2_adds_the_networks_that_are_its_own(tmp_path):
    place = made(tmp_path)
    alone = programs.distinct((one.run for one in place.plan([table2.STUDY], [0]).runs), CORES)
    both = programs.distinct((one.run for one in place.plan([table2.STUDY, table3.STUDY], [0]).runs), CORES)
    assert list(both)[: len(alone)] == list(alone)
    added = [both[key] for key in list(both)[len(alone) :]]
    assert [(one.kind, one.run.scale["depth"]) for one in added] == [
        (kind, depth) for depth in (101, 152, 200) for kind in ("train", "evaluation")
    ]


def test_fine_tuning_is_the_program_of_a_training_from_scratch(tmp_path):
    place = dataclasses.replace(made(tmp_path), pre_training=workspace.papers_pre_training())
    runs = place.plan([table5.STUDY], [0]).runs
    # 400 classes, 700 to pre-train on, which nobody evaluates, and 600.
    found = programs.distinct((one.run for one in runs), CORES)
    assert [(one.kind, one.run.data.classes) for one in found.values()] == [
        ("train", 400), ("evaluation", 400), ("train", 700), ("train", 600), ("evaluation", 600)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "others"),
    [
        (LS.at(), (True, False)),
        (SD.at(), (True, False)),
        (WD.at(), (True, False)),
        (EMA.at(), (True, False)),
        (SE.at(), (True, True)),
        (DSTEM.at(), (True, True)),
        (DEPTH.at(101), (True, True)),
        (FRAMES.at(48), (True, True)),
        (RESOLUTION.at(256), (True, True)),
        (EP.at(), (False, False)),
        (SJ.at(), (False, False)),
        (RA.at(), (False, False)),
        (DEPTH.at(50), (False, False)),
    ],
    ids=str,
)
def test_a_toggle_makes_another_program_where_it_shapes_the_step(one, others):
    assert are_others(pair(one)) == others


@pytest.mark.parametrize(
    ("one", "others"),
    [
        (RA.at(), (True, False)),
        (SJ.at(), (True, False)),
        (EP.at(), (False, False)),
        (LS.at(), (True, False)),
        (SE.at(), (True, True)),
    ],
    ids=str,
)
def test_runs_whose_clips_are_made_otherwise_are_fed_otherwise(one, others):
    """Augmentation is no part of a step, but of the time that it takes; of an evaluation it is neither."""
    assert tuple(own.fed != base.fed for own, base in zip(pair(one), pair(), strict=True)) == others


def test_two_strengths_of_an_augmentation_are_fed_otherwise():
    low, high = (pair(RA.at(value)) for value in (5, 10))
    assert (low[0].key, low[1].fed) == (high[0].key, high[1].fed)
    assert low[0].fed != high[0].fed


def test_every_second_frame_of_a_video_is_fed_otherwise():
    run = run_of()
    sparse = dataclasses.replace(run, settings={**run.settings, "task.train_data.temporal_stride": 4})
    (train, evaluation), (other, evaluated) = (programs.of_run(one, CORES) for one in (run, sparse))
    assert (train.shape, evaluation.fed) == (other.shape, evaluated.fed)
    assert train.fed != other.fed


def test_seeds_schedules_and_data_are_fed_alike():
    longer = dataclasses.replace(KINETICS_400, train_videos=200_000)
    for changes in ({"seed": 7}, {"data": longer}, {"cut": Overrides(steps=10)}):
        assert [one.fed for one in pair(**changes)] == [one.fed for one in pair()]


@pytest.mark.parametrize("toggle", [LS, SD, WD, SE, EMA])
def test_a_toggle_at_another_value_is_another_train_step(toggle):
    low, high = (pair(toggle.at(value))[0] for value in (0.25, 0.5))
    assert low.shape != high.shape


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({"seed": 7}, (False, False)),
        ({"data": KINETICS_600}, (True, True)),
        ({"data": dataclasses.replace(KINETICS_400, classes=399)}, (True, True)),
        ({"data": dataclasses.replace(KINETICS_400, train_videos=200_000)}, (False, False)),
        ({"data": dataclasses.replace(KINETICS_400, validation_videos=15_000)}, (False, False)),
        ({"data": dataclasses.replace(KINETICS_400, name="k400", fingerprint="ab" * 32)}, (False, False)),
        ({"cut": Overrides(steps=10)}, (False, False)),
        ({"cut": Overrides(validation_videos=1_000)}, (False, False)),
        ({"cut": Overrides(batch=512)}, (True, False)),
        # 8 clips a core as before, whose gradients are summed over half as many cores.
        ({"cut": Overrides(batch=512), "cores": 64}, (True, False)),
        ({"cores": 64}, (True, False)),
    ],
)
def test_data_clips_and_cores(changes, others):
    assert are_others(pair(**changes)) == others


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate": 1.6}, (False, False)),
        ({f"{OPTIMIZER}.learning_rate.cosine.decay_steps": 5}, (False, False)),
        ({f"{OPTIMIZER}.warmup.linear.warmup_steps": 5}, (False, False)),
        ({"trainer.train_steps": 5}, (False, False)),
        ({"task.train_data.aug_max_area_ratio": 0.9}, (False, False)),
        ({"task.train_data.shuffle_buffer_size": 1}, (False, False)),
        ({f"{OPTIMIZER}.optimizer.sgd.nesterov": False}, (True, False)),
        ({f"{OPTIMIZER}.optimizer.sgd.momentum": 0.8}, (True, False)),
        ({"task.model.dropout_rate": 0.2}, (True, False)),
        ({"task.train_data.mixup_and_cutmix": {"label_smoothing": 0.0}}, (True, False)),
        ({"task.model.norm_activation.activation": "swish"}, (True, True)),
        ({"task.model.norm_activation.use_sync_bn": True}, (True, True)),
        ({"runtime.mixed_precision_dtype": "float32"}, (True, True)),
        ({"network.blocks[3]": 4}, (True, True)),
        ({"network.filters[0]": 32}, (True, True)),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_a_setting_makes_another_program_where_it_shapes_the_step(changes, others):
    assert are_others(with_settings(changes)) == others


def test_views_and_size_belong_to_the_evaluation_alone():
    run = run_of()
    for protocol in (
        dataclasses.replace(run.protocol, clips=4),
        dataclasses.replace(run.protocol, crops=1),
        dataclasses.replace(run.protocol, size=288),
    ):
        assert are_others(programs.of_run(dataclasses.replace(run, protocol=protocol), CORES)) == (False, True)


def test_a_train_step_is_no_evaluation():
    train, evaluation = pair()
    assert len({train.key, evaluation.key, train.of(1).key}) == 3


def test_another_version_makes_another_key_of_the_same_shape(monkeypatch):
    def hashes():
        return [(one.key, (one.shape, one.fed)) for one in pair()]

    found = [hashes()]
    monkeypatch.setattr(programs, "versions", lambda: {"tensorflow": "9.9.9"})
    found.append(hashes())
    monkeypatch.setattr(programs, "sources", lambda: "of another day")
    found.append(hashes())
    for own in zip(*found, strict=True):
        assert len({key for key, _ in own}) == 3
        assert len({shape for _, shape in own}) == 1


def test_versions_are_those_of_what_makes_a_step():
    assert set(programs.versions()) == {"tensorflow", "tf-keras", "tf-models-official"}


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("training/task.py", True),
        ("training/garden_config.py", True),
        ("training/determinism.py", True),
        ("data/on_device.py", True),
        ("data/seeded_ops.py", True),
        ("accelerators/lower.py", True),
        ("scheduler/progress.py", False),
        ("reporting/preflight_tables.py", False),
    ],
)
def test_what_was_compiled_by_other_sources_is_not_believed(tmp_path, monkeypatch, changed, counts):
    copy = tmp_path / "harness"
    shutil.copytree(Path(harness.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(programs.importlib.resources, "files", lambda _: copy)
    before = programs.sources.__wrapped__()
    path = copy / changed
    path.write_text(path.read_text() + "# changed\n")
    assert (programs.sources.__wrapped__() != before) == counts


@pytest.mark.parametrize("cores", [96, 2048])
def test_a_batch_that_the_cores_cannot_share_is_refused(cores):
    with pytest.raises(SettingsError, match=rf"1024.*{cores} cores.*--batch"):
        programs.of_run(run_of(), cores)
    with pytest.raises(SettingsError, match=str(cores)):
        programs.distinct([run_of()], cores)


def test_multiply_adds_of_the_baseline_by_hand():
    train, evaluation = pair()
    # R3D-50 takes 45.5e9 a clip at 224 pixels, 59.456e9 a view at 256; a train step three times its forward pass.
    assert train.multiply_adds == pytest.approx(3 * 8 * 45.5e9, rel=1e-3)
    assert evaluation.multiply_adds == pytest.approx(30 * 59.456e9, rel=1e-4)


@pytest.mark.parametrize("scale", [(), (DEPTH.at(200), FRAMES.at(48)), (RESOLUTION.at(288),)])
def test_multiply_adds_are_those_of_the_crops_of_each_part(scale):
    train, evaluation = pair(*R3D_RS, *scale)
    settings = train.run.settings
    frames, crop = settings["task.train_data.feature_shape[0]"], settings["task.train_data.feature_shape[1]"]
    assert train.multiply_adds == 3 * 8 * network.count(settings, frames, crop).multiply_adds
    size = {224: 256, 256: 288, 288: 320}[crop]
    assert evaluation.multiply_adds == 30 * network.count(settings, frames, size).multiply_adds


def test_with_fewer_clips_it_is_the_same_step_of_less():
    for one in pair():
        half = one.of(4)
        assert (half.kind, half.run, half.clips, half.cores) == (one.kind, one.run, 4, one.cores)
        assert half.multiply_adds * one.clips == one.multiply_adds * 4
        assert half.key != one.key
        assert half.of(one.clips).key == one.key
    assert pair()[0].of(4).key == pair(cut=Overrides(batch=512))[0].key


def test_a_batch_is_said_in_words():
    train, evaluation = pair()
    batches = [one.batch for one in (train, train.of(1), evaluation, evaluation.of(2))]
    assert batches == ["8 clips", "1 clip", "1 video", "2 videos"]


def test_a_description_says_what_the_program_is():
    train, evaluation = (programs.described(one) for one in pair(*R3D_RS, DEPTH.at(200), FRAMES.at(48)))
    assert json.loads(json.dumps(train)) == train
    assert (train["kind"], train["clips"], train["cores"], train["views"]) == ("train", 8, CORES, 1)
    assert (evaluation["kind"], evaluation["clips"], evaluation["views"]) == ("evaluation", 1, 30)
    assert (train["shape"], evaluation["shape"]) == ([24, 224, 224, 3], [24, 256, 256, 3])
    assert train["toggles"]["se"] == 0.25
    assert train["multiply_adds"] == pair(*R3D_RS, DEPTH.at(200), FRAMES.at(48))[0].multiply_adds


def test_a_quick_evaluation_of_few_videos_has_a_smaller_batch():
    runs = [
        experiment.complete(Cell((), 0), QUICK, KINETICS_400, cut, 8)
        for cut in (NO_CUT, Overrides(validation_videos=24))
    ]
    every, few = (programs.of_run(run, 8)[1] for run in runs)
    assert (every.clips, few.clips) == (16, 3)
    assert every.shape != few.shape


def test_contrasting_takes_two_clips_of_a_video_and_a_frozen_network_no_pass_backward():
    cell = table6.STUDY.rows[1].cell(0)
    first = experiment.complete(cell.before, PAPER, KINETICS_400, NO_CUT, CORES)
    linear = experiment.complete(cell, PAPER, KINETICS_400, NO_CUT, CORES, parent=first)
    (contrasted,), (classified, _) = (programs.executed(run, CORES) for run in (first, linear))
    assert (contrasted.clips, contrasted.views, contrasted.batch) == (16, 2, "16 videos")
    assert (classified.clips, classified.views, classified.batch) == (8, 1, "8 clips")
    # CVRL's authors pre-train on 16 frames, and classify 32.
    assert classified.run.settings["task.train_data.feature_shape[0]"] == 32
    one, other = (network.count(run.settings, 16, 224).multiply_adds for run in (first, linear))
    # The projection's four layers in place of the classifier; by hand, from 2048 features.
    assert one - other == 3 * 2048 * 2048 + 2048 * 128 - 2048 * 400
    assert contrasted.multiply_adds == 3 * 16 * 2 * one
    assert classified.multiply_adds == 8 * network.count(linear.settings, 32, 224).multiply_adds
    assert network.training(first.settings) == 84_208 * 2048 * 2 * 3 * one
    assert network.training(linear.settings) == 21_052 * 128 * classified.multiply_adds
