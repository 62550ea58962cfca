"""A study that is stopped in every way there is; the heavy forms of what is imported here are commands of their own.

The signals are real, and so are the processes; of the trainings that are stopped by them one is, and the others pretend
(:mod:`tests.support.pretend`). Each waits for the signal.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from harness.store.run_store import Store
from tests.proofs import clips, resume, seeds
from tests.support import forked, waiting

ONE_ROW = ["--rows", "1", "--steps", "6", "--validation-videos", "8"]


def words_for(folder, data):
    return [*ONE_ROW, "--data", data, "--results", folder / "results", "--plots", folder / "plots"]


def start(folder, data, waits=""):
    """Starts the study, which trains for real."""
    words = ["--profile", "tiny", *words_for(folder, data)]
    return forked.Command("harness.additive_study", words, environment={waiting.VARIABLE: waits})


def start_pretending(folder, waits=""):
    """Starts the study, which pretends to train."""
    command = [sys.executable, "-u", "-m", "tests.support.pretend", "additive", *words_for(folder, folder / "clips")]
    command += ["--wandb", "off"]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PRETEND_SECONDS": "0", waiting.VARIABLE: waits}, cwd=forked.ROOT,
    )  # fmt: skip


def until_training(process):
    """Reads what the study says until its row trains."""
    for line in process.stdout:
        if "training" in line.partition("row 1: baseline: ")[2]:
            return
    raise AssertionError("the study ended before it trained")


def check_stopped(folder, process, code, said):
    """Checks that a study that was told to stop has saved a checkpoint; the run and the step that it reached."""
    rest = process.communicate()[0]
    assert process.returncode == code, rest
    assert said in rest
    assert "the same command goes on from here" in rest
    store = Store(folder / "results")
    (run,) = store.runs.glob("[!.]*")
    state = store.state(run.name)
    assert state.name == "interrupted"
    assert 0 < state.step == store.attempts(run.name).furthest
    return run.name, state.step


def check_goes_on(folder, process, run, step):
    """Checks that the same command ends what was stopped."""
    rest = process.communicate()[0]
    assert process.returncode == 0, rest
    assert f"training, from step {step}" in rest
    assert Store(folder / "results").read(run).provenance["resumed_at"] == [step]


def test_a_signal_saves_a_checkpoint_and_the_same_command_goes_on(tmp_path, data):
    process = start(tmp_path, data.folder, waiting.SIGNAL)
    until_training(process)
    os.kill(process.pid, signal.SIGTERM)  # as a scheduler does: to the process that it started
    run, step = check_stopped(tmp_path, process, 143, "Stopped (row 1: baseline")
    check_goes_on(tmp_path, start(tmp_path, data.folder), run, step)


def test_ctrl_c_saves_a_checkpoint_and_the_same_command_goes_on(tmp_path):
    process = start_pretending(tmp_path, waiting.SIGNAL)
    until_training(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process in it
    run, step = check_stopped(tmp_path, process, 130, "Stopping once a checkpoint")
    check_goes_on(tmp_path, start_pretending(tmp_path), run, step)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start_pretending(tmp_path, waiting.EVER)
    until_training(process)
    os.kill(process.pid, signal.SIGINT)
    for line in process.stdout:
        if "Stopping once" in line:
            os.kill(process.pid, signal.SIGINT)
            break
    rest = process.communicate()[0]
    assert process.returncode == 130, rest
    assert resume.gone(process.pid), "a process was left behind"


@pytest.mark.slow
def test_row_3_killed_and_resumed_sees_the_same_clips(tmp_path, drawn):
    drawn(tmp_path)
    found = clips.prove(48, tmp_path, forked.run)
    assert found["steps"] == [48, 48]


@pytest.mark.slow
def test_row_10_is_a_function_of_its_seed(tmp_path, drawn):
    for name in ("first", "second", "other"):
        drawn(tmp_path / name)
    small = ["--depth", "50", "--frames", "32"]  # what takes time at row 10's own size is building it three times
    found = seeds.prove([*small, "--steps", "3", "--validation-videos", "8"], tmp_path, forked.run)
    assert json.dumps(found).count("equal") == 1
