"""The command: compiles the quick profile's programs, finds the batch that fits, and asks for nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.profiles import QUICK
from ablations.table2 import STUDY
from harness import preflight
from harness.accelerators import tpu_compiler
from harness.config import experiment, network
from harness.planning import workspace

HERE = ["--profile", "quick", "--topology", "v3:2x2", "--rows", "1"]
needs_libtpu = pytest.mark.skipif(tpu_compiler.installed() is None, reason="needs pip install -e '.[preflight]'")


def tiny(data, results):
    """What the command finds of the tiny profile's first row, and what it says meanwhile."""
    words = ["table2", "--profile", "tiny", "--data", data.folder, "--topology", "v3:2x2", "--rows", "1", "--json"]
    done = CliRunner().invoke(preflight.main, [*map(str, words), "--results", str(results)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def preflown(results, *flags, code=0, environment=None):
    done = subprocess.run(
        [sys.executable, "-m", "harness.preflight", "table2", *HERE, "--results", results, "--json", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=600,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def baseline():
    data = workspace.data_set(None, QUICK, Path("nowhere")).facts
    return experiment.complete(STUDY.rows[0].cell(0), QUICK, data, replicas=8)


@needs_libtpu
def test_programs_of_a_row_are_compiled_once_and_measured(data, tiny_profile, tmp_path):
    run = experiment.complete(STUDY.rows[0].cell(0), tiny_profile, workspace.facts(data.manifest), replicas=8)
    found, said = tiny(data, tmp_path)
    assert "2/2" in said
    train, evaluation = found["programs"]
    params = network.count(run.settings).params
    # Weights and momentum in float32, and two clips of 4 frames of 16 x 16 pixels; a TPU rounds their shapes up.
    least = 4 * 2 * params + 2 * 4 * 16 * 16 * 3
    assert least < train["arguments"]
    # What a step changes keeps its place: all but its logs.
    assert 0 <= train["outputs"] - train["aliased"] < 100_000
    assert train["aliased"] > 4 * 2 * 0.9 * params
    assert (
        train["needed"]
        == sum(train[name] for name in ("arguments", "outputs", "temporaries", "code")) - (train["aliased"])
    )
    by_hand = 3 * 2 * network.count(run.settings, 4, 16).multiply_adds
    # The first layer has no gradient of its input, and what meets padding is not counted.
    assert 0.2 * by_hand < train["multiply_adds"] < by_hand
    assert evaluation["aliased"] == 0
    assert evaluation["views"] == 6
    (row,) = found["rows"]
    assert row["steps"] == run.settings["trainer.train_steps"]
    seconds = row["steps"] * train["step_seconds"] + row["evaluation_steps"] * evaluation["step_seconds"]
    assert row["core_hours"] == pytest.approx(8 * seconds / 3600)
    assert found["slice"]["cores"] == 8

    again, said = tiny(data, tmp_path)
    assert said == ""
    assert again == found


@needs_libtpu
@pytest.mark.slow
def test_programs_of_the_quick_profile_are_compiled_once_and_measured(results):
    found, said = preflown(results)
    assert "2/2" in said
    train, evaluation = found["programs"]
    params = network.count(baseline().settings).params
    # Weights and momentum in float32, and two clips of 8 frames of 28 x 28 pixels; a TPU rounds their shapes up.
    least = 4 * 2 * params + 2 * 8 * 28 * 28 * 3
    assert least < train["arguments"] < 4 * least
    # What a step changes keeps its place: all but its logs.
    assert 0 <= train["outputs"] - train["aliased"] < 100_000
    assert train["aliased"] > 4 * 2 * 0.9 * params
    assert (
        train["needed"]
        == sum(train[name] for name in ("arguments", "outputs", "temporaries", "code")) - (train["aliased"])
    )
    by_hand = 3 * 2 * network.count(baseline().settings, 8, 28).multiply_adds
    # The first layer has no gradient of its input, and what meets padding is not counted.
    assert 0.5 * by_hand < train["multiply_adds"] < by_hand
    assert evaluation["aliased"] == 0
    assert evaluation["views"] == 30
    (row,) = found["rows"]
    assert row["steps"] == 256
    seconds = row["steps"] * train["step_seconds"] + row["evaluation_steps"] * evaluation["step_seconds"]
    assert row["core_hours"] == pytest.approx(8 * seconds / 3600)
    assert found["slice"]["cores"] == 8

    again, said = preflown(results)
    assert said == ""
    assert again == found


HIDDEN = """
from importlib import metadata
_version = metadata.version
def version(name):
    if name == "libtpu":
        raise metadata.PackageNotFoundError(name)
    return _version(name)
metadata.version = version
"""


@pytest.mark.slow
def test_without_a_tpu_compiler_the_cpu_s_proves_it_and_memory_is_an_estimate(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    found, said = preflown(tmp_path / "results", environment={"PYTHONPATH": path})
    assert "XLA on the CPU" in said
    train, evaluation = found["programs"]
    assert train["estimated"] and evaluation["estimated"]
    assert "estimate" in train["verdict"]
    params = network.count(baseline().settings).params
    assert 4 * 2 * params < train["arguments"]
    assert train["temporaries"] > 0
    assert found["rows"][0]["hours"] > 0


def test_without_anything_compiled_nothing_is_made_up(tmp_path):
    found, _ = preflown(tmp_path, "--cached", code=1)
    assert [one["verdict"] for one in found["programs"]] == ["not compiled"] * 2
    assert found["rows"][0]["hours"] is None
    assert (found["total"]["known"], found["total"]["unknown"]) == (0, 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["table2", "--topology", "v3:3x3"], ["v3:3x3", "even"]),
        (["table2", "--topology", "v9:2x2"], ["v9", "v2, v3"]),
        (["table2", "--topology", "v3-7"], ["v3-7", "expected"]),
        (["table2", "--topology", "v3:8x8", "--batch", "1000"], ["1000", "128"]),
        (["table9", "--topology", "v3:8x8"], ["table9", "table6"]),
        (["table2", "table3", "--rows", "1", "--topology", "v3:8x8"], ["--rows", "one study"]),
        (["table2", "--rows", "99", "--topology", "v3:8x8"], ["99"]),
        (["table2"], ["--topology"]),
        (["--topology", "v3:8x8"], ["STUDY"]),
        (["table2", "--topology", "v3:8x8", "--price", "nan"], ["nan"]),
        (["table2", "--topology", "v3:8x8", "--jobs", "0"], ["--jobs"]),
    ],
)
def test_a_mistake_is_one_line(tmp_path, flags, words):
    done = CliRunner().invoke(preflight.main, [*flags, "--results", str(tmp_path), "--cached"])
    assert done.exit_code == 2
    assert all(word in done.output for word in words), done.output
    assert "Traceback" not in done.output
