"""Settings of a cell: what they hold, what a toggle changes in them, and their identity."""

import dataclasses
import itertools
import math
import random

import pytest

from ablations.profiles import PAPER, PROFILES, QUICK
from ablations.table2 import STUDY
from ablations.toggles import AXES, DEPTH, DSTEM, EMA, EP, FRAMES, LS, RA, RESOLUTION, SD, SE, SJ, TABLE_2, WD
from harness.config import experiment
from harness.config.experiment import DatasetInfo, Overrides, SettingsError
from harness.config.studies import Cell
from harness.config.toggles import Toggle, ToggleError

KINETICS = DatasetInfo("kinetics400", 400, 215_570, 17_706, "ab" * 32)
BACKBONE = "task.model.backbone.resnet_3d_rs"
OPTIMIZER = "trainer.optimizer_config"

# Written by hand from the paper and the Garden's names, not from the toggles.
FIELDS = {
    LS: {"task.losses.label_smoothing"},
    SD: {f"{BACKBONE}.stochastic_depth_drop_rate"},
    WD: {"task.losses.l2_weight_decay"},
    EP: {"trainer.train_steps", f"{OPTIMIZER}.learning_rate.cosine.decay_steps"},
    SJ: {"task.train_data.aug_min_area_ratio"},
    SE: {f"{BACKBONE}.se_ratio"},
    DSTEM: {f"{BACKBONE}.stem_type"},
    RA: {"task.train_data.aug_type"},
}
SUBSETS = [subset for size in range(9) for subset in itertools.combinations(TABLE_2, size)]


def settings(*applied, profile=PAPER, data=KINETICS, **others):
    return experiment.complete(Cell(applied), profile, data, replicas=1, **others).settings


@pytest.mark.parametrize("depth", DEPTH.choices)
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_subset_changes_exactly_the_fields_of_its_toggles(depth, profile):
    assert len(SUBSETS) == 256
    baseline = settings(DEPTH.at(depth), profile=profile)
    shuffle = random.Random(depth)
    for subset in SUBSETS:
        order = shuffle.sample(subset, len(subset))
        changed = settings(DEPTH.at(depth), *(toggle.at() for toggle in order), profile=profile)
        assert set(experiment.difference(baseline, changed)) == set().union(*(FIELDS[toggle] for toggle in subset))
        assert changed == settings(*(toggle.at() for toggle in reversed(order)), DEPTH.at(depth), profile=profile)


def test_toggled_values_are_the_papers():
    full = settings(*(toggle.at() for toggle in TABLE_2))
    assert full["task.losses.label_smoothing"] == 0.1
    assert full[f"{BACKBONE}.stochastic_depth_drop_rate"] == 0.2
    assert full["task.losses.l2_weight_decay"] == 4e-5
    assert full["task.train_data.aug_min_area_ratio"] == 0.08
    assert full[f"{BACKBONE}.se_ratio"] == 0.25
    assert full[f"{BACKBONE}.stem_type"] == "v1"
    assert full["task.train_data.aug_type"]["randaug"]["magnitude"] == 10
    assert full["task.train_data.aug_type"]["randaug"]["num_layers"] == 2
    # The Garden's published YAML of RS-50 has this number of steps.
    assert full["trainer.train_steps"] == full[f"{OPTIMIZER}.learning_rate.cosine.decay_steps"] == 73_682
    assert settings()["trainer.train_steps"] == math.ceil(200 * 215_570 / 1024)
    assert settings()[f"{OPTIMIZER}.warmup.linear.warmup_steps"] == math.ceil(5 * 215_570 / 1024)


def test_axes_change_what_the_paper_scales():
    base = settings()
    frames = {"task.train_data.feature_shape[0]": (16, 24), "task.validation_data.feature_shape[0]": (16, 24)}
    assert experiment.difference(base, settings(FRAMES.at(48))) == frames
    sides = {f"task.{split}_data.feature_shape[{side}]" for split in ("train", "validation") for side in (1, 2)}
    larger = experiment.difference(base, settings(RESOLUTION.at(256)))
    assert set(larger) == sides | {"task.validation_data.min_image_size"}
    assert larger["task.train_data.feature_shape[1]"] == (224, 256)
    assert larger["task.validation_data.feature_shape[1]"] == (256, 288)
    assert settings(RESOLUTION.at(288))["task.validation_data.feature_shape[2]"] == 320
    assert settings(FRAMES.at("32x2"))["task.train_data.feature_shape[0]"] == 32
    assert [settings(DEPTH.at(200))[f"network.blocks[{stage}]"] for stage in range(4)] == [3, 24, 36, 3]


def test_350_epochs_are_one_and_three_quarters_of_the_baseline_in_the_quick_profile():
    data = DatasetInfo("embedded", 8, 512, 240)
    steps = [settings(*applied, profile=QUICK, data=data)["trainer.train_steps"] for applied in ((), (EP.at(),))]
    assert steps[1] == 1.75 * steps[0]


def run(*applied, profile=QUICK, data=KINETICS, seed=0, **others):
    return experiment.complete(Cell(applied, seed), profile, data, **others)


def test_identity_is_a_full_content_hash_of_what_decides_the_result():
    base = run(LS.at())
    assert len(base.identity) == 64
    assert run(LS.at(), DEPTH.at(50)).identity == base.identity
    assert run(LS.at(0.1)).identity == base.identity
    others = [
        run(LS.at(0.2)),
        run(),
        run(LS.at(), seed=1),
        run(LS.at(), profile=PAPER, replicas=1),
        run(LS.at(), data=dataclasses.replace(KINETICS, fingerprint="cd" * 32)),
        run(LS.at(), replicas=2),
        run(LS.at(), cut=Overrides(steps=2)),
        run(LS.at(), parent="ef" * 32),
    ]
    assert len({base.identity, *(other.identity for other in others)}) == len(others) + 1


def test_identity_leaves_out_what_cannot_change_the_result():
    base = run()
    assert run(data=dataclasses.replace(KINETICS, name="another name")).identity == base.identity
    assert run(cut=Overrides(validation_videos=2)).identity == base.identity
    elsewhere = dataclasses.replace(QUICK, bookkeeping={**QUICK.bookkeeping, "trainer.steps_per_loop": 3})
    assert run(profile=elsewhere).identity == base.identity


def test_identity_follows_the_results_version_and_the_garden(monkeypatch):
    base = run().identity
    monkeypatch.setattr(experiment, "RESULTS_VERSION", experiment.RESULTS_VERSION + 1)
    raised = run().identity
    monkeypatch.setattr(experiment, "garden_version", lambda: "9.9")
    assert len({base, raised, run().identity}) == 3


def test_an_integer_and_its_float_are_one_setting():
    assert run(LS.at(0)).identity == run().identity


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(replicas=3), "batch 16: cannot be split evenly over 3 replicas"),
        (lambda: Overrides(steps=0), "steps 0: expected at least 1"),
        (lambda: run(cut=Overrides(validation_videos=99_999)), "validation videos 99999: kinetics400 has 17706"),
        (
            lambda: run(Toggle("mine", "", "", "", {"task.losses.label_smothing": 1}, 1).at()),
            "toggle mine changes 'task.losses.label_smothing', which is no setting: did you mean task.losses.label_sm",
        ),
        (
            lambda: run(Toggle("one", "", "", "", {"task.train_data.one_hot": False}, 1).at()),
            "task.train_data.one_hot=False: expected the same as task.losses.one_hot",
        ),
        (
            lambda: run(
                Toggle("big", "", "", "", {"task.validation_data.feature_shape[1]": 64}, 1).at(), RESOLUTION.at()
            ),
            "resolution=224 and big=1 both set",
        ),
    ],
)
def test_settings_refuse(make, message):
    with pytest.raises((SettingsError, ToggleError)) as error:
        make()
    assert message in str(error.value)


def test_ema_is_offered_and_off_in_the_baseline():
    assert settings()[f"{OPTIMIZER}.ema"] is None
    assert settings(EMA.at())[f"{OPTIMIZER}.ema"]["average_decay"] == 0.9999


def test_rows_of_the_study_follow_the_papers_table():
    assert [row.number for row in STUDY.rows] == list(range(1, 11))
    keys = [[one.toggle.key for one in row.applied] for row in STUDY.rows]
    assert keys[7] == ["ls", "sd", "wd", "ep", "sj", "se", "dstem"]
    assert keys[9] == [*keys[7], "depth", "frames", "ra"]
    assert {axis.key for axis in AXES} == {"depth", "frames", "resolution"}
