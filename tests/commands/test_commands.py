"""The commands as a user meets them: help, mistakes, plans. Nothing here trains, and none of it loads TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import (
    additive_study,
    benchmark,
    cancel,
    check_statistics,
    costs,
    evaluate,
    export,
    import_garden,
    import_wandb,
    index_data,
    paper_significance,
    plan_seeds,
    prepare_data,
    report,
    retry,
    scaling_sweep,
    status,
    study,
    train,
)
from harness.cli import options
from harness.config.designs import DESIGNS
from tests.support import imports

COMMANDS = {
    "additive_study": additive_study.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "benchmark": benchmark.main,
    "cancel": cancel.main,
    "check_statistics": check_statistics.main,
    "costs": costs.main,
    "index_data": index_data.main,
    "prepare_data": prepare_data.main,
    "export": export.main,
    "import_garden": import_garden.main,
    "import_wandb": import_wandb.main,
    "paper_significance": paper_significance.main,
    "plan_seeds": plan_seeds.main,
    "report": report.main,
    "retry": retry.main,
    "scaling_sweep": scaling_sweep.main,
    "status": status.main,
    "study": study.main,
}


def call(name, *words):
    return CliRunner().invoke(COMMANDS[name], [str(word) for word in words])


@pytest.mark.parametrize(("of_the_user", "taken"), [(None, "1"), ("0", "0")])
def test_tensorflow_computes_with_onednn_unless_the_user_says_otherwise(monkeypatch, of_the_user, taken):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if of_the_user is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", of_the_user)
    code = "import os, harness; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == taken


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name):
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"python -m harness.{name}" in result.output


@pytest.fixture(scope="module")
def imported(once):
    """Name of a step -> its report, of one process that imports and calls them all."""

    def make(folder):
        (folder / "results").mkdir()
        words = [sys.executable, "-m", "tests.support.imports", folder / "results"]
        done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        (folder / "steps.json").write_text(done.stdout)

    return json.loads((once("imported", make) / "steps.json").read_text())


def test_every_command_is_among_the_imports():
    assert sorted(COMMANDS) == sorted((*imports.FIRST, *imports.QUEUE, *imports.COMMANDS))


@pytest.mark.parametrize("step", imports.STEPS, ids=lambda step: step.name)
def test_it_leaves_tensorflow_and_what_else_it_does_without_alone(step, imported):
    report = imported[step.name]
    assert {name: by for name, by in report["brought"].items() if name in step.without} == {}
    assert report["result"] == step.result


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("additive_study", ["--rows", "11"], "row 11: table2 has rows 1 to 10"),
        ("additive_study", ["--rows", "1-"], "rows '1-': expected numbers such as 1,3,5-8"),
        ("additive_study", ["--rows", "1..3"], "rows '1..3': expected numbers such as 1,3,5-8"),
        ("additive_study", ["--profile", "papre"], "unknown profile 'papre': did you mean paper?"),
        ("additive_study", ["--profile", "paper"], "--profile paper needs --data DIR"),
        ("additive_study", ["--data", "/nowhere", "--plan"], "/nowhere/manifest.json: no such file"),
        ("additive_study", ["--add", "mixup", "--plan"], "unknown toggle 'mixup': expected one of"),
        ("additive_study", ["--add", "sd=0.3", "--plan"], "sd=0.2 and sd=0.3 both set"),
        ("additive_study", ["--toggles", "/nowhere.py", "--plan"], "/nowhere.py: no such file"),
        ("additive_study", ["--batch", "15", "--replicas", "2", "--plan"], "batch 15: cannot be split evenly over 2"),
        ("train", ["sd=inf", "--plan"], "sd=inf: expected a finite number"),
        ("additive_study", ["--design", "latin"], "'latin' is not one of 'additive', 'reverse', 'one-at-a-time'"),
        ("additive_study", ["--design", "reverse", "--rows", "1", "--plan"], "leave it out with --design"),
        ("additive_study", ["--factors", "ls,sd", "--plan"], "--factors: is what designs ask; name one with --design"),
        ("additive_study", ["--base", "depth=101", "--plan"], "--base: is what designs ask"),
        ("additive_study", ["--design", "shapley", "--orderings", "3"], "--orderings 3: expected an even number"),
        ("additive_study", ["--design", "reverse", "--factors", "ls,lss"], "unknown toggle 'lss': did you mean ls?"),
        ("additive_study", ["--design", "reverse", "--factors", "ls,ls"], "toggle ls: is given twice"),
        ("additive_study", ["--design", "reverse", "--factors", ","], "unknown toggle ''"),
        ("additive_study", ["--design", "reverse", "--base", "sd"], "toggle sd: is given twice, or in the base"),
        ("additive_study", ["--design", "reverse", "--factors", ""], "unknown toggle ''"),
        ("additive_study", ["--design", "reverse", "--factors", "ls,depth=50"], "depth=50: every run has it"),
        ("additive_study", ["--design", "reverse", "--factors", "ls,dstem=v0", "--plan"], "are the same run"),
        ("additive_study", ["--design", "reverse", "--orderings", "4"], "--orderings 4: is for --design shapley"),
        ("additive_study", ["--margin", "nan"], "nan is no number"),
        ("plan_seeds", ["--detect", "nan"], "nan is no number"),
        ("plan_seeds", ["--detect", "9", "--videos", "240", "--discordance", "8"], "--detect 9: a difference cannot"),
        ("additive_study", ["--margin", "0"], "0.0 is not in the range 0<x<=100"),
        ("additive_study", ["--seeds", "0"], "0 is not in the range x>=1"),
        ("additive_study", ["--tpu", "t", "--strategy", "mirrored", "--plan"], "--tpu and --strategy mirrored"),
        ("train", ["lss", "--plan"], "unknown toggle 'lss': did you mean ls?"),
        ("train", ["--depth", "18", "--plan"], "depth=18: expected one of 50, 101"),
        ("train", ["--parent", "abc", "--plan"], "run 'abc': no record under"),
        ("evaluate", ["abc"], "run 'abc': no record under"),
        ("evaluate", ["abc", "--views", "10x2"], "--views '10x2': expected CLIPSxCROPS"),
        ("index_data", ["/nowhere", "--classes", "x"], "/nowhere: no such folder"),
        ("study", ["table5", "--pretrain-data", "/nowhere", "--plan"], "/nowhere/manifest.json: no such file"),
        ("study", ["table2", "table6", "--pretrain-data", "/d", "--plan"], "/d: table2 and table6 would not look"),
        ("study", ["table5", "--pretrain-data", "a", "--pretrain-data", "b", "--plan"], "given 2 times: expected one"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(name, words, message, tmp_path):
    if name not in ("index_data",):
        words = [*words, "--results", tmp_path]
    result = call(name, *words)
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Traceback" not in result.output


def test_a_plan_of_chains_names_what_rows_start_from(tmp_path):
    result = call("study", "table5", "--plan", "--profile", "paper", "--results", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "WVT, 70,000,000 training and 70,000 validation videos of 700 classes (private; how" in result.output
    assert "row 2, 4 (pre-training): ls sd wd sj se dstem depth=200 frames=48" in result.output
    # By hand: four rows, two of which have another run before them, the same.
    assert "Wanted 6 runs, saved 1 that rows share, done 0, to do 5; evaluation 10 x 3 views" in result.output
    assert list(tmp_path.iterdir()) == []


def test_plan_says_what_would_run_and_writes_nothing(tmp_path):
    result = call("additive_study", "--plan", "--results", tmp_path / "results", "--plots", tmp_path / "plots")
    assert result.exit_code == 0
    assert "Wanted 10 runs, saved 0 that rows share, done 0, to do 10" in result.output
    assert list(tmp_path.iterdir()) == []


def test_several_designs_are_one_plan_that_says_what_it_saves(tmp_path):
    words = [word for name in ("additive", "reverse", "leave-one-out", "shapley") for word in ("--design", name)]
    words += ["--factors", "ls,sd,ep", "--seeds", "2", "--plan", "--results", tmp_path]
    result = call("additive_study", *words)
    assert result.exit_code == 0, result.output
    # By hand: all 8 combinations of three toggles for each seed, asked by 4 + 4 + 4 + 8 rows.
    assert "Wanted 40 runs, saved 24 that rows share, done 0, to do 16" in result.output
    assert "additive 1, reverse 1 and 1 more: baseline" in result.output


def test_the_names_of_designs_are_those_there_are():
    assert list(options.DESIGN_NAMES) == list(DESIGNS)


def test_plan_of_the_papers_training_needs_no_data(tmp_path):
    result = call("additive_study", "--profile", "paper", "--plan", "--results", tmp_path, "--tpu", "local")
    assert result.exit_code == 0
    assert "Kinetics-400, 215,570 training" in result.output
    assert "73,682 steps of 1024 clips" in result.output
    assert "TPU v3 core-hours" in result.output


def test_train_prints_the_difference_from_the_baseline(tmp_path):
    result = call("train", "ls", "sd=0.1", "--plan", "--results", tmp_path)
    assert result.exit_code == 0
    assert "task.losses.label_smoothing: 0.0 -> 0.1" in result.output
    assert "stochastic_depth_drop_rate: 0.0 -> 0.1" in result.output


def test_a_toggle_of_ones_own_is_an_eleventh_row(tmp_path):
    file = tmp_path / "my.py"
    file.write_text(
        "from harness.config.toggles import VALUE, Toggle\n"
        "DROPOUT = Toggle('dropout', 'DO', 'mine', 'dropout', {'task.model.dropout_rate': VALUE}, 0.3)\n"
    )
    result = call("additive_study", "--toggles", file, "--add", "dropout=0.1", "--plan", "--results", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert "Wanted 11 runs" in result.output
    assert "row 11: ls sd" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no Toggle"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        (
            "from harness.config.toggles import Toggle\nT = Toggle('ls', '', '', 'mine', {}, 1)",
            "the key 'ls' is taken by",
        ),
    ],
)
def test_unusable_toggle_files_are_named(tmp_path, text, message):
    file = tmp_path / "my.py"
    file.write_text(text)
    result = call("train", "--toggles", file, "--plan", "--results", tmp_path)
    assert result.exit_code == 2
    assert f"my.py: {message}" in result.output


def test_drawing_without_records_replaces_no_table(tmp_path):
    result = call("additive_study", "--draw", "--results", tmp_path / "results", "--plots", tmp_path / "plots")
    assert result.exit_code == 2
    assert "holds no record of profile quick to draw" in result.output
    assert not (tmp_path / "results" / "tables").exists()


def test_a_file_in_place_of_the_results_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    result = call("additive_study", "--steps", "1", "--rows", "1", "--results", tmp_path / "file")
    assert result.exit_code == 2
    assert result.output.strip().splitlines()[-1].startswith("Error: ")
