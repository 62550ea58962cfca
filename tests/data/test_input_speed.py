"""The rate at which a machine read clips: kept, read again, and taken for the clips of a run."""

import ast
import importlib.util
import json
import os
from pathlib import Path

import pytest

from ablations.toggles import DEPTH, FRAMES, RA, RESOLUTION, SJ
from harness.config.experiment import SettingsError
from harness.data import input_speed
from harness.data.input_speed import InputSpeed
from tests.accelerators.test_programs import run_of

MEASURED = [
    {"case": "training", "ours": 40.0, "garden": 30.0, "decode_only": 50.0},
    {"case": "training with RandAugment", "ours": 24.0, "garden": 20.0, "decode_only": 50.0},
    {"case": "30-view evaluation", "ours": 1.5, "garden": 1.0, "decode_only": 2.0},
]


def test_what_was_measured_is_read_again(tmp_path):
    path = input_speed.write_input_speed(tmp_path, MEASURED)
    assert path == input_speed.path(tmp_path)
    found = input_speed.read_input_speed(tmp_path)
    assert (found.plain, found.augmented) == (40.0, 24.0)
    assert 1 <= found.cores <= os.cpu_count()


def test_nothing_measured_is_nothing(tmp_path):
    assert input_speed.read_input_speed(tmp_path) is None


def test_a_machine_that_measures_again_replaces_it(tmp_path):
    input_speed.write_input_speed(tmp_path, MEASURED)
    path = input_speed.write_input_speed(tmp_path, [{**one, "ours": 2 * one["ours"]} for one in MEASURED])
    found = input_speed.read_input_speed(tmp_path)
    assert (found.plain, found.augmented) == (80.0, 48.0)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ((), 40.0),
        ((SJ.at(),), 40.0),
        ((DEPTH.at(200),), 40.0),
        ((RESOLUTION.at(288),), 40.0),
        ((FRAMES.at(48),), 40 * 16 / 24),  # the network sees every second frame
        ((FRAMES.at(64),), 20.0),
        ((FRAMES.at("48x2"),), 40 * 16 / 48),
        ((RA.at(),), 24.0),
        ((RA.at(0),), 24.0),
        ((RA.at(), FRAMES.at(48)), 16.0),
    ],
)
def test_a_run_is_read_at_the_rate_of_its_frames_and_augmentation(changes, rate):
    assert InputSpeed(40.0, 24.0, 2).clips_per_second(run_of(*changes)) == pytest.approx(rate)


def test_the_benchmark_measures_what_is_kept():
    source = ast.parse(Path(importlib.util.find_spec("harness.data.benchmark").origin).read_text("utf-8"))
    (cases,) = (
        node.value for node in ast.walk(source)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        and "CASES" in ast.unparse(node).split("=")[0]
    )  # fmt: skip
    assert {one["case"] for one in MEASURED} == {key.value for key in cases.keys}


def damaged(**changes):
    def damage(text):
        content = {**json.loads(text), **changes}
        return json.dumps({name: value for name, value in content.items() if value is not ...}, default=str)

    return damage


def rates(plain=40.0, augmented=24.0):
    return {"training": plain, "training with RandAugment": augmented}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: "null",
        damaged(schema=input_speed.SCHEMA + 1),
        damaged(schema=...),
        damaged(cores=...),
        damaged(cores=0),
        damaged(cores=-2),
        damaged(cores="many"),
        damaged(cores=float("nan")),
        damaged(clips_per_second=...),
        damaged(clips_per_second=[40.0, 24.0]),
        damaged(clips_per_second={"training": 40.0}),
        damaged(clips_per_second=rates(plain=0.0)),
        damaged(clips_per_second=rates(plain=-1.0)),
        damaged(clips_per_second=rates(augmented=float("nan"))),
        damaged(clips_per_second=rates(augmented=float("inf"))),
        damaged(clips_per_second=rates(augmented=None)),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    path = input_speed.write_input_speed(tmp_path, MEASURED)
    path.write_text(damage(path.read_text()))
    with pytest.raises(SettingsError) as error:
        input_speed.read_input_speed(tmp_path)
    assert str(path) in str(error.value)
    assert "harness.benchmark input" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_changed_in_nothing_is_no_damage(tmp_path):
    path = input_speed.write_input_speed(tmp_path, MEASURED)
    before = input_speed.read_input_speed(tmp_path)
    path.write_text(damaged(clips_per_second=rates())(path.read_text()))
    assert input_speed.read_input_speed(tmp_path) == before
