"""Parameters and multiply-adds against the measured numbers, and the command that prints them."""

import json

import pytest
from click.testing import CliRunner

from ablations.profiles import PAPER
from harness import costs
from harness.config import experiment, network
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell

# Measured on the Garden's built models: all Keras weights, and the profiler's convolutions and dense layers.
MEASURED = {
    "R3D-50": (38_119_248, 59_456_454_656),
    "R3D-50 + SE": (48_197_904, 59_466_514_432),
    "R3D-RS-50": (48_183_088, 57_490_997_248),
    "R3D-RS-101": (85_074_992, 114_542_444_544),
    "R3D-RS-152": (114_939_696, 167_297_351_680),
    "R3D-RS-200": (121_552_688, 203_806_670_848),
    "R3D-RS-200, 48 frames": (121_552_688, 305_692_606_464),
    "R3D-RS-200, 600 classes": (121_962_488, 203_807_080_448),
}


@pytest.mark.parametrize("counted", costs.lines(), ids=lambda line: line["model"])
def test_counts_are_exact_and_near_the_papers(counted):
    if counted["model"] in MEASURED:
        assert (counted["params"], counted["multiply_adds"]) == MEASURED[counted["model"]]
    if counted["paper_params_m"]:
        assert round(counted["params"] / 1e6, 1) == counted["paper_params_m"]
    if counted["paper_gflops"]:
        assert counted["multiply_adds"] / 1e9 == pytest.approx(counted["paper_gflops"], rel=0.011)


def test_training_costs_three_forward_passes_of_the_training_clips():
    run = experiment.complete(Cell(()), PAPER, DatasetInfo("k", 400, 1024, 1), replicas=1)
    forward = network.count(run.settings, frames=16, size=224).multiply_adds
    assert network.training(run.settings) == 3 * forward * 1024 * 200


def test_command_prints_json():
    done = CliRunner().invoke(costs.main, ["--json"], catch_exceptions=False)
    assert done.exit_code == 0
    printed = {line["model"]: (line["params"], line["multiply_adds"]) for line in json.loads(done.stdout)}
    assert printed.items() >= MEASURED.items()
