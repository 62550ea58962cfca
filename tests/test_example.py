"""The committed example: its table follows from its records, and its records from its predictions."""

from pathlib import Path

import numpy as np
import pytest

from ablations.table2 import STUDY
from harness import outputs, tables, workspace
from harness.devices import Devices
from harness.experiment import Cut
from harness.store import Store

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "results" / "example"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    profile = workspace.profile("quick")
    data = workspace.data_set(None, profile, tmp_path_factory.mktemp("results"))
    return workspace.Workspace(profile, data, Cut(), 1, Store(EXAMPLE), Devices())


def summary(example):
    plan = example.plan([STUDY], [0])
    return outputs.summary(STUDY, plan, outputs.evidence(example, plan, margin=0.5))


def test_the_example_is_what_the_default_command_wants(example):
    plan = example.plan([STUDY], [0])
    assert len(plan.runs) == 10
    assert plan.missing == ()


def test_the_table_follows_from_the_records_and_stands_in_the_readme(example):
    numbers = summary(example)
    for suffix, text in tables.render(tables.additive(numbers)).items():
        assert (EXAMPLE / f"table2-quick.{suffix}").read_text() == text
    table = (EXAMPLE / "table2-quick.md").read_text().split("\n\n")[1]
    assert table in (ROOT / "README.md").read_text()


def test_every_number_of_the_example_is_recomputed_from_its_predictions(example):
    for record in map(example.store.read, example.store.ids()):
        predictions = example.store.predictions(record, "10x3@32")
        labels, best = predictions["label"].to_numpy(), np.stack(predictions["top_class"])
        assert record.evaluations["10x3@32"].top1 == np.mean(best[:, 0] == labels)
        assert record.provenance["dirty"] is False


def test_each_row_lies_between_chance_and_95_percent(example):
    rows = summary(example).rows
    assert (rows["low"] > 100 / 8).all()
    assert (rows["high"] < 95).all()
