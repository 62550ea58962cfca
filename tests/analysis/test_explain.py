"""Every number of a table can be followed to its runs and counted anew; a record that was changed is found out."""

import copy
import dataclasses
import functools
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ablations import table6
from ablations.profiles import QUICK
from ablations.table2 import STUDY
from harness import report
from harness.analysis import evidence, explain, trainings
from harness.analysis.explain import Address, ExplainError
from harness.cli import synthetic
from harness.config.devices import Devices
from harness.config.experiment import DatasetInfo, Overrides
from harness.planning import workspace
from harness.reporting import sections
from harness.store.run_store import Snapshot, Store

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    "one seed": (ROOT / "results" / "example", "table2-quick"),
    "three seeds": (
        ROOT / "results" / "example-designs",
        "table2-quick-3-seeds-of-sd-ep-dstem-ra-6-orders-additive",
    ),
}


def summary(store):
    ((_, made),) = trainings.trainings(store, None, "embedded", {}).items()
    plan = made.plan([STUDY], sections.chosen_of(STUDY, made).seeds)
    return evidence.summary(STUDY, plan, evidence.evidence(made, plan, 0.5)), plan.wanted["table2"]


@functools.cache
def of_example(name):
    """A store, the summary of its study and the runs that are wanted: read once for all tests, which change nothing."""
    store = Snapshot(EXAMPLES[name][0])
    return store, *summary(store)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_number_of_the_examples_is_counted_anew(example):
    store, numbers, wanted = of_example(example)
    counted = 0
    for row in numbers.rows.index:
        for column in explain.columns(numbers):
            found = explain.explain(numbers, wanted, store, Address("table2", row, column))
            assert found.agrees, found.lines
            counted += not math.isnan(found.recounted)
    assert counted > (200 if example == "one seed" else 20)


def test_the_values_are_those_of_the_committed_table():
    folder, name = EXAMPLES["one seed"]
    _, numbers, _ = of_example("one seed")
    printed = pd.read_csv(folder / f"{name}.csv", index_col="row")
    for column in set(explain.columns(numbers)) & set(printed):
        assert np.allclose(printed[column], numbers.rows[column].astype(float), equal_nan=True), column


def test_it_says_where_a_number_comes_from():
    found = CliRunner().invoke(report.main, ["--explain", "table2:3:step", "--results", str(EXAMPLES["one seed"][0])])
    assert found.exit_code == 0, found.output
    for said in (
        "table2, row 3, step: -16.66666667",
        "Run d2a8a8e9ad366043, seed 0: 144 of 240 videos right at 10x3@32, profile quick",
        "commit 69acf11662c8da8b5e615f44773495ca9ffad274",
        "fingerprint 2145b4335428e65b",
        "checkpoint ",
        "stochastic_depth_drop_rate: 0.0 -> 0.2",
        "144 right of 240 videos less 184 right of 240 videos: -16.66666667, the same",
    ):
        assert said in found.output


def test_a_record_that_says_another_number_is_found_out():
    store, numbers, wanted = of_example("one seed")
    numbers = copy.deepcopy(numbers)
    numbers.rows.loc[3, "top1"] = 61.0
    found = explain.explain(numbers, wanted, store, Address("table2", 3, "top1"))
    assert not found.agrees
    assert "NOT THE SAME" in found.lines[-1]


def test_the_papers_number_names_its_place_in_print():
    store, numbers, wanted = of_example("one seed")
    found = explain.explain(numbers, wanted, store, Address("table2", 2, "paper_top1"))
    assert found.value == 74.9
    assert "arXiv:2109.01696" in found.lines[1]
    assert "row 2 of ablations/published/table2.csv" in found.lines[1]


def test_what_was_not_run_is_said_so(tmp_path):
    shutil.copytree(EXAMPLES["one seed"][0] / "runs", tmp_path / "runs")
    _, _, wanted = of_example("one seed")
    shutil.rmtree(tmp_path / "runs" / wanted[3][0])
    numbers, wanted = summary(Store(tmp_path))
    found = explain.explain(numbers, wanted, Store(tmp_path), Address("table2", 3, "top1"))
    assert math.isnan(found.value)
    assert found.agrees
    assert "0 of 1 runs are finished" in found.lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("table2", "expected STUDY:ROW:COLUMN"),
        ("table2:x:top1", "expected STUDY:ROW:COLUMN"),
        ("table9:1:top1", "unknown study 'table9'"),
        ("table2:11:top1", "row 11: expected one of 1, 2"),
        ("table2:1:top", "column 'top': did you mean top"),
    ],
)
def test_a_number_that_there_is_not_is_one_line(text, said):
    found = CliRunner().invoke(report.main, ["--explain", text, "--results", str(EXAMPLES["one seed"][0])])
    assert found.exit_code == 2
    assert said in found.output
    assert found.output.count("\n") == 1


def test_nothing_of_a_study_was_run(tmp_path):
    found = CliRunner().invoke(report.main, ["--explain", "table2:1:top1", "--results", str(tmp_path)])
    assert (found.exit_code, found.output) == (2, "Error: table2:1:top1: nothing of table2 was run\n")


def test_addresses_are_read():
    assert explain.address("table2:5:top1") == Address("table2", 5, "top1")
    with pytest.raises(ExplainError):
        explain.address("table2:5")


def test_what_a_run_starts_from_differs_too(tmp_path):
    facts = DatasetInfo("embedded-motion", 8, 512, 240, "ab" * 32)
    made = workspace.DataSet(facts, None, None, ready=True)
    place = workspace.Workspace(QUICK, made, Overrides(), 1, Store(tmp_path), Devices(), repeat_short=True)
    study = dataclasses.replace(table6.STUDY, rows=table6.STUDY.rows[:2])
    synthetic.write_synthetic(place, [study], 3)
    plan = place.plan([study], [0])
    before = next(one.run.id for one in plan.runs if not one.run.evaluated)
    numbers = evidence.summary(study, plan, evidence.evidence(place, plan, 0.5))
    found = explain.explain(numbers, plan.wanted["table6"], place.store, Address("table6", 2, "top1"))
    head = found.lines.index("Settings that differ from row 1:")
    assert found.lines[head + 1 : head + 2] == (
        f"  starts from: its seed -> run {before[:8]} (self-supervised pre-training)",
    )
    assert found.lines[head + 2].startswith("Counted anew")
    again = dict(plan.wanted["table6"]) | {2: plan.wanted["table6"][1]}
    alike = explain.explain(numbers, again, place.store, Address("table6", 2, "top1"))
    assert alike.lines[alike.lines.index("Settings that differ from row 1:") + 1] == "  none"
