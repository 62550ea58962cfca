"""A study that is stopped in every way there is; the heavy forms of what is imported here are commands of their own."""

import json
import os
import signal
import subprocess
import sys

import pytest

from harness.store import Store
from tests.proofs import clips, resume, seeds

ONE_ROW = ["--rows", "1", "--steps", "60", "--validation-videos", "8"]


def start(folder):
    command = [sys.executable, "-u", "-m", "harness.additive_study", *ONE_ROW]
    command += ["--results", f"{folder}/results", "--plots", f"{folder}/plots"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def until_training(process):
    """Reads what the study says until its row trains."""
    for line in process.stdout:
        if "training" in line.partition("row 1: baseline: ")[2]:
            return
    raise AssertionError("the study ended before it trained")


@pytest.mark.parametrize(
    ("number", "everyone", "code", "said"),
    [
        (signal.SIGTERM, False, 143, "Stopped (row 1: baseline"),
        pytest.param(signal.SIGINT, True, 130, "Stopping once a checkpoint", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_a_checkpoint_and_the_same_command_goes_on(tmp_path, drawn, number, everyone, code, said):
    drawn(tmp_path / "results")
    process = start(tmp_path)
    until_training(process)
    # A terminal sends Ctrl-C to every process in it; a scheduler tells the one that it started.
    (os.killpg if everyone else os.kill)(process.pid, number)
    rest = process.communicate()[0]
    assert process.returncode == code, rest
    assert said in rest
    assert "the same command goes on from here" in rest
    store = Store(tmp_path / "results")
    (folder,) = store.runs.glob("[!.]*")
    state = store.state(folder.name)
    assert state.name == "interrupted"
    assert 0 < state.step == store.attempts(folder.name).furthest
    done = start(tmp_path)
    rest = done.communicate()[0]
    assert done.returncode == 0, rest
    assert f"training, from step {state.step}" in rest
    assert store.read(folder.name).provenance["resumed_at"] == [state.step]


def test_a_second_ctrl_c_ends_at_once(tmp_path, drawn):
    drawn(tmp_path / "results")
    process = start(tmp_path)
    until_training(process)
    os.kill(process.pid, signal.SIGINT)
    for line in process.stdout:
        if "Stopping once" in line:
            os.kill(process.pid, signal.SIGINT)
            break
    process.communicate()
    assert process.returncode == 130
    assert resume.gone(process.pid), "a process was left behind"


@pytest.mark.slow
def test_row_3_killed_and_resumed_sees_the_same_clips(tmp_path, drawn):
    drawn(tmp_path)
    found = clips.prove(48, tmp_path)
    assert found["steps"] == [48, 48]


@pytest.mark.slow
def test_row_10_is_a_function_of_its_seed(tmp_path, drawn):
    for name in ("first", "second", "other"):
        drawn(tmp_path / name)
    small = ["--depth", "50", "--frames", "32"]  # what takes time at row 10's own size is building it three times
    found = seeds.prove([*small, "--steps", "3", "--validation-videos", "8"], tmp_path)
    assert json.dumps(found).count("equal") == 1
