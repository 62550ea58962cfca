"""Table 6's chain for real, on a handful of clips: CVRL leaves a backbone, which linear evaluation leaves as it is."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from ablations import table6
from ablations.profiles import QUICK
from harness import execution, experiment
from harness.data import embedded
from harness.experiment import Cut
from harness.store import Store
from harness.workspace import facts

SPEC = embedded.EmbeddedSpec(train_videos=16, validation_videos=8, frames=24)
CELL = table6.STUDY.rows[2].cell(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return embedded.ensure(SPEC, root), embedded.folder(SPEC, root)


def carried_out(data, store, cell, report, parent=None, start=None, number=0):
    """The record of a run of three steps, each of which leaves a checkpoint, and its weights by name."""
    run = experiment.complete(cell, QUICK, facts(data[0]), Cut(steps=3, batch=4), parent=start)
    often = {"trainer.steps_per_loop": 1, "trainer.checkpoint_interval": 1}
    run = dataclasses.replace(run, bookkeeping={**run.bookkeeping, **often})
    attempt = store.attempt(run.id, number)
    place = execution.place_of(store, run, attempt, data[1], parent=parent)
    record = execution.execute(run, data[0], place, store, attempt, report)
    return run, record, variables(store.weights(record))


def variables(path):
    found = tf.train.load_checkpoint(str(path))
    names = [name for name in found.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: found.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A store with a run of CVRL, its events, and a store that holds what a kill after its third step would leave."""
    store, killed = (Store(tmp_path_factory.mktemp(name)) for name in ("whole", "killed"))
    events = []

    def report(event):
        events.append(event)
        if event["event"] == "train" and event["step"] == 3:
            shutil.copytree(store.runs, killed.runs, dirs_exist_ok=True)

    return store, *carried_out(data, store, CELL.before, report), events, killed


def test_cvrl_leaves_a_backbone_that_linear_evaluation_leaves_as_it_is(data, pretrained):
    store, first, record, before, events, _ = pretrained
    curve = [point for point in record.curve if point["split"] == "train"]
    assert [point["step"] for point in curve] == [1, 2, 3]
    assert all(np.isfinite(point["loss"]) and 0 <= point["contrast_acc"] <= 1 for point in curve)
    assert record.evaluations == {}
    assert not [event for event in events if event["event"] in ("validation", "evaluate")]

    weights = str(store.weights(record))
    _, linear, found = carried_out(data, store, CELL, lambda _: None, parent=weights, start=first)
    assert linear.parent == record.identity
    assert len(linear.evaluations) == 1
    backbone = [name for name in found if name.startswith("backbone/")]
    assert len(backbone) > 60
    assert all(np.array_equal(before[name], found[name]) for name in backbone)
    head = [value for name, value in found.items() if value.shape == (256, 8)]
    assert len(head) == 1


def test_cvrl_that_was_killed_comes_to_what_an_undisturbed_one_does(data, pretrained):
    """The step that is done again takes LARS's momentum, clips, distortions and left-out blocks as they were."""
    _, run, whole, expected, _, killed = pretrained
    assert not killed.has(run.id)
    _, record, found = carried_out(data, killed, CELL.before, lambda _: None, number=1)
    assert record.provenance["resumed_at"] == [2]
    assert [point["loss"] for point in record.curve] == [point["loss"] for point in whole.curve]
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name
