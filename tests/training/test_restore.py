"""Weights of one network into another: all of what is asked for, or nothing, and what differs by name."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from ablations import table6
from ablations.profiles import PAPER, QUICK
from ablations.toggles import BACKBONE, DEPTH, DSTEM, SE
from harness.config import experiment
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell
from harness.data import reader
from harness.store.attempts import RunError
from harness.training import determinism, garden_config, restore, tasks
from harness.training.task import VideoTask


def network(*applied, classes=8, seed=0):
    run = experiment.complete(Cell(applied, seed), QUICK, DatasetInfo("d", classes, 64, 16, "ab" * 32))
    with determinism.of_run(run):
        config = garden_config.build(run.settings, run.bookkeeping)
        return VideoTask(config.task, None, reader.Source((), (), 1)).build_model()


def narrow(cell, start=None):
    """A stage of the paper's, of few filters and one block of each kind, and its network."""
    run = experiment.complete(cell, PAPER, DatasetInfo("d", 8, 4096, 16, "ab" * 32), parent=start)
    sizes = {"filters": 2, "blocks": 1}
    small = {f"network.{field}[{stage}]": size for field, size in sizes.items() for stage in range(4)}
    small |= {"task.model.hidden_dim": 8, f"{BACKBONE}.model_id": 14}
    run = dataclasses.replace(run, settings={**run.settings, **small})
    with determinism.of_run(run):
        config = garden_config.build(run.settings, run.bookkeeping)
        return run, tasks.task_maker(run.settings)(config.task, None, reader.Source((), (), 1)).build_model()


def synchronised(model):
    """Whether each batch normalization of the backbone is."""
    found = [one for one in model.backbone._flatten_layers() if isinstance(one, tf_keras.layers.BatchNormalization)]
    return {one.synchronized for one in found}


def written(model, path):
    return tf.train.Checkpoint(model=model, **model.checkpoint_items).write(str(path))


def values(model):
    return [variable.numpy() for variable in model.variables]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A network of ten classes, none of whose variables is as it was initialised, and its weights."""
    model = network(classes=10)
    draw = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(draw.normal(size=variable.shape))
    return model, written(model, tmp_path_factory.mktemp("weights") / "weights-2")


def test_a_backbone_is_taken_whole_and_the_head_is_drawn_from_the_childs_own_seed(parent):
    model, path = parent
    child, alike = network(seed=5), network(seed=5)
    read = restore.take(child, path, "backbone")
    assert len(read) == len(model.backbone.variables) == len(child.backbone.variables)
    for ours, theirs in zip(child.backbone.variables, model.backbone.variables, strict=True):
        assert np.array_equal(ours, theirs)
    heads = [[variable.numpy() for variable in one.layers[-1].variables] for one in (child, alike)]
    assert [kernel.shape for kernel in heads[0]] == [(256, 8), (8,)]
    for ours, fresh in zip(*heads, strict=True):
        assert np.array_equal(ours, fresh)
    assert not np.array_equal(heads[0][0], network(seed=6).layers[-1].variables[0])


def test_what_was_trained_with_synchronised_statistics_is_taken_by_a_network_without(tmp_path):
    """As linear evaluation under the paper's settings does with the backbone that CVRL leaves: all of it, by name."""
    cell = table6.STUDY.rows[2].cell(0)
    start, model = narrow(cell.before)
    draw = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(draw.normal(size=variable.shape))
    _, child = narrow(cell, start)
    assert [synchronised(one) for one in (model, child)] == [{True}, {False}]
    read = restore.take(child, written(model, tmp_path / "weights-2"), "backbone")
    ours, theirs = (restore.variables(tf.train.Checkpoint(backbone=one.backbone)) for one in (child, model))
    assert set(read) == ours.keys() == theirs.keys()
    # A frozen network lists its variables in another order.
    ours, theirs = ({one.name: one.numpy() for one in net.backbone.variables} for net in (child, model))
    assert len(read) == len(ours) == len(theirs) == len(child.backbone.variables)
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


def test_a_whole_network_is_taken_where_that_is_asked(parent):
    model, path = parent
    child = network(classes=10)
    assert len(restore.take(child, path, "all")) == len(model.variables)
    for ours, theirs in zip(values(child), values(model), strict=True):
        assert np.array_equal(ours, theirs)


def test_names_are_those_that_tensorflow_writes(parent):
    model, path = parent
    root = tf.train.Checkpoint(model=model, **model.checkpoint_items)
    listed = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): tuple(shape)
              for name, shape in tf.train.list_variables(path)
              if name.endswith("VARIABLE_VALUE") and not name.startswith("save_counter")}  # fmt: skip
    assert restore.variables(root) == listed


@pytest.mark.parametrize(
    ("applied", "classes", "modules", "words"),
    [
        ((DEPTH.at(101),), 10, "backbone", ["missing ("]),
        ((DSTEM.at(),), 10, "backbone", ["of another shape (backbone/", "instead of"]),
        ((SE.at(),), 10, "backbone", ["missing ("]),
        ((), 8, "all", ["2 of another shape (model/", "[256, 10] instead of [256, 8]", "[10] instead of [8]"]),
    ],
    ids=["depth", "stem", "squeeze-and-excitation", "head"],
)
def test_another_network_is_refused_and_nothing_of_it_is_read(parent, applied, classes, modules, words, tmp_path):
    child = network(*applied, classes=classes)
    before = values(child)
    with pytest.raises(RunError, match=r"weights of another network than the run.s: ") as refused:
        restore.take(child, parent[1], modules)
    assert all(word in str(refused.value) for word in words), refused.value
    # What TensorFlow lists of the two, each written as a run writes it.
    there, wanted = (dict(tf.train.list_variables(path)) for path in (parent[1], written(child, tmp_path / "own")))
    part = [name for name in {**there, **wanted} if name.startswith("backbone/" if modules == "backbone" else "")]
    for kind, count in {
        "missing": sum(name not in there for name in part),
        "unknown to it": sum(name not in wanted for name in part),
        "of another shape": sum(name in there and name in wanted and there[name] != wanted[name] for name in part),
    }.items():
        assert (f"{count} {kind} (" in str(refused.value)) == bool(count), refused.value
    assert "\n" not in str(refused.value)
    for ours, own in zip(values(child), before, strict=True):
        assert np.array_equal(ours, own)


def test_what_only_the_weights_have_is_refused_too(tmp_path):
    path = written(network(SE.at()), tmp_path / "weights-2")
    with pytest.raises(RunError, match=r"\d+ unknown to it \(backbone/.*, \.\.\.\)"):
        restore.take(network(), path, "backbone")


def test_what_is_missing_is_named(parent, tmp_path):
    model, _ = parent
    path = tf.train.Checkpoint(model=tf.Module(), backbone=tf.train.Checkpoint(some=tf.Variable(1.0))).write(
        str(tmp_path / "weights-2")
    )
    count = len(model.backbone.variables)
    with pytest.raises(RunError, match=rf"{count} missing \(.*\); 1 unknown to it \(backbone/some\)"):
        restore.take(network(), path, "backbone")


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(RunError, match="no weights that can be read"):
        restore.take(network(), str(tmp_path / "weights-2"), "backbone")
