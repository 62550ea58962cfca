"""The committed examples: their tables follow from their records, and their records from their predictions."""

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from ablations.table2 import STUDY
from ablations.toggles import TOGGLES
from harness.analysis import evidence
from harness.config import designs
from harness.config.designs import Question
from harness.config.devices import Devices
from harness.config.experiment import Overrides
from harness.planning import catalog, workspace
from harness.reporting import layouts, render, study_tables, writers
from harness.store.run_store import Store
from harness.sweep import sweep_summary
from tests.support import committed

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "results" / "example"
DESIGNS = ROOT / "results" / "example-designs"
SHOWN = ("figure1", "figure2", "table2", "table3", "table4", "table5", "table6")
# Of these two there are more seeds: of Table 6, of the rows that say what pre-training without labels is worth.
THREE_SEEDS = ("table5", "table6")
QUESTION = Question(STUDY, tuple(TOGGLES[key].at() for key in ("sd", "ep", "dstem", "ra")), (), (0, 1, 2), 6)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    profile = workspace.profile("quick")
    data = workspace.data_set(None, profile, tmp_path_factory.mktemp("results"))
    return workspace.Workspace(profile, data, Overrides(), 1, Store(EXAMPLE), Devices())


@pytest.fixture(scope="module")
def asked(example):
    """The workspace of the example of several designs, the designs, and their plan."""
    made = workspace.Workspace(example.profile, example.data, Overrides(), 1, Store(DESIGNS), Devices())
    built = designs.build(["additive", "reverse", "leave-one-out", "shapley"], QUESTION)
    return made, built, made.plan([design.study for design in built], QUESTION.seeds)


@pytest.fixture(scope="module")
def summary(example):
    """Gives the summary of a study of the example, read once for all tests, which change nothing."""

    @functools.cache
    def read(name="table2", seeds=1):
        study = catalog.study(name)
        plan = example.plan([study], range(seeds))
        return evidence.summary(study, plan, evidence.evidence(example, plan, margin=0.5))

    return read


def stands_in_the_readme(path):
    table, caption = path.read_text().split("\n\n")[1:3]
    readme = (ROOT / "README.md").read_text()
    assert table in readme
    assert f"<sub>{caption.strip()}</sub>" in readme


def test_the_examples_are_what_their_commands_want(example, asked):
    plan = example.plan([catalog.study(name) for name in SHOWN], [0])
    # The rows that share a run, and by hand: Table 5's four trainings and one to start from, Table 6's seven and six.
    assert len(plan.runs) == 18 + 5 + 13
    assert plan.missing == ()
    # By hand: all 16 combinations of four toggles for each of three seeds.
    assert (len(asked[2].runs), asked[2].missing) == (48, ())


def test_what_pre_training_is_worth_stands_in_the_readme(summary):
    readme = " ".join((ROOT / "README.md").read_text().split())
    for name, steps in (("table5", (2, 4)), ("table6", (2,))):
        rows = summary(name, 3).rows
        for number in steps:
            step, low, high = rows.loc[number, ["step", "step_low", "step_high"]]
            assert f"{step:.1f} [{low:+.1f}, {high:+.1f}]" in readme.replace(" points [", " [")
            assert low > 0


def test_the_tables_follow_from_the_records_and_stand_in_the_readme(summary):
    shown = [*((name, 1, "quick") for name in SHOWN), *((name, 3, "quick-3-seeds") for name in THREE_SEEDS)]
    for study, seeds, ending in ((catalog.study(name), *how) for name, *how in shown):
        numbers = summary(study.name, seeds)
        drawn = {f"{study.name}-{ending}": layouts.layout_of(study).table(numbers)}
        if any(row.follows for row in study.rows):
            drawn[f"{study.name}-{ending}-steps"] = study_tables.steps(numbers)
        for name, table in drawn.items():
            for suffix, text in render.render(dataclasses.replace(table, name=name)).items():
                assert committed.equals(EXAMPLE / f"{name}.{suffix}", text)
    stands_in_the_readme(EXAMPLE / "table2-quick.md")
    stands_in_the_readme(EXAMPLE / "table6-quick.md")


def test_the_sweeps_follow_from_their_storage_and_the_records(tmp_path):
    shutil.copytree(EXAMPLE / "runs", tmp_path / "runs")
    shutil.copytree(EXAMPLE / "sweeps", tmp_path / "sweeps")
    found = sweep_summary.summaries(tmp_path)
    assert [one.name for one in found] == ["nsga2-quick", "tpe-quick"]
    for one in found:
        for name, table in sweep_summary.tables(one):
            for suffix, text in render.render(table).items():
                assert committed.equals(EXAMPLE / f"{name}.{suffix}", text)
        points = one.points
        known = points[points["top1"].notna()]
        front = known[known["front"]]
        for _, point in known.iterrows():  # by hand: nothing on the front is beaten, and nothing else is not
            beaten = (
                (known["gflops"] <= point["gflops"])
                & (known["top1"] >= point["top1"])
                & ((known["gflops"] < point["gflops"]) | (known["top1"] > point["top1"]))
            ).any()
            assert beaten != point["front"]
        assert len(front)
    stands_in_the_readme(EXAMPLE / "sweep-nsga2-quick-front.md")


def test_the_credits_follow_from_the_records_and_stand_in_the_readme(asked):
    made, built, plan = asked
    found = writers.credits(built, QUESTION, plan, evidence.evidence(made, plan, margin=0.5))
    stem = evidence.stem(made, STUDY, 3, evidence.design_names(QUESTION, built))
    name = f"{stem}-additive-reverse-leave-one-out-shapley"
    for kind, table in (("credit", study_tables.credits(found)), ("interactions", study_tables.interactions(found))):
        for suffix, text in render.render(table).items():
            assert committed.equals(DESIGNS / f"{name}-{kind}.{suffix}", text)
    stands_in_the_readme(DESIGNS / f"{name}-credit.md")


def test_every_number_of_the_examples_is_recomputed_from_its_predictions():
    for store in (Store(EXAMPLE), Store(DESIGNS)):
        for record in map(store.read, store.ids()):
            if not record.evaluations:  # others start from it
                assert any(store.read(other).parent == record.identity for other in store.ids())
                continue
            (protocol,) = record.evaluations
            predictions = store.predictions(record, protocol)
            labels, best = predictions["label"].to_numpy(), np.stack(predictions["top_class"])
            evaluation = record.evaluations[protocol]
            assert evaluation.top1 == np.mean(best[:, 0] == labels)
            assert evaluation.top5 == pytest.approx(np.mean((best == labels[:, None]).any(axis=1)))
            assert record.provenance["dirty"] is False


def test_a_run_that_both_examples_hold_came_out_alike():
    shared = set(Store(EXAMPLE).ids()) & set(Store(DESIGNS).ids())
    assert len(shared) >= 1, "the baseline with the first seed"
    for run_id in shared:
        one, other = (store.predictions(store.read(run_id), "10x3@32") for store in (Store(EXAMPLE), Store(DESIGNS)))
        assert one["loss"].equals(other["loss"])


def test_each_row_lies_between_chance_and_95_percent(summary):
    rows = summary().rows
    assert (rows["low"] > 100 / 8).all()
    assert (rows["high"] < 95).all()
