"""Weights of one run into the network of another: all that is asked for, or nothing and what differs.

TensorFlow reads what two networks have in common and passes over what only the checkpoint has; so half of another
network would be taken without a word. Here the two are held against one another first, by name and shape.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from harness.store.attempts import RunError

# As TensorFlow ends the name of a variable in a checkpoint.
_ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"
# What differs is named up to so many variables of a kind.
_NAMED = 3

Shapes = Mapping[str, tuple[int, ...]]


def take(model: tf_keras.Model, path: str, modules: str) -> list[str]:
    """Reads weights of another run into a network.

    Args:
      model: the network; what is not read keeps what it was initialised with.
      path: the weights, as a run leaves them.
      modules: "backbone", everything but the head, or "all".

    Returns:
      The names of the variables that were read.

    Raises:
      RunError: the weights are not exactly those of the network's modules; what differs is named, and nothing is read.
    """
    root = tf.train.Checkpoint(**_parts(model, modules))
    wanted, held = variables(root), _held(path, modules)
    if differences := list(_differences(wanted, held)):
        raise RunError(f"{path}: weights of another network than the run's: {'; '.join(differences)}")
    try:
        root.read(path).assert_existing_objects_matched().expect_partial()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise RunError(f"{path}: cannot be read into the network ({' '.join(str(error).split())[:200]})") from error
    return sorted(wanted)


def _parts(model: tf_keras.Model, modules: str) -> dict[str, Any]:
    """The parts of a network under the names that they have in the weights of a run."""
    if modules == "backbone":
        return {"backbone": model.backbone}
    if modules == "all":
        return {"model": model, **model.checkpoint_items}
    raise RunError(f"task.init_checkpoint_modules={modules}: expected backbone or all")


def variables(root: Any) -> dict[str, tuple[int, ...]]:
    """Name of each variable in a checkpoint of an object -> its shape: the shortest way to it."""
    view = tf.train.TrackableView(root)
    found: dict[str, tuple[int, ...]] = {}
    seen, left = {id(root)}, collections.deque([(root, "")])
    while left:
        thing, way = left.popleft()
        if isinstance(thing, tf.Variable):
            found[way] = tuple(thing.shape.as_list())
        for name, child in view.children(thing).items():
            if id(child) not in seen:
                seen.add(id(child))
                left.append((child, f"{way}/{name}" if way else name))
    return found


def _held(path: str, modules: str) -> dict[str, tuple[int, ...]]:
    """What weights hold of some modules."""
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: no weights that can be read ({' '.join(str(error).split())[:200]})") from error
    named = {name.removesuffix(_ENDING): tuple(shape) for name, shape in shapes.items() if name.endswith(_ENDING)}
    beginning = "backbone/" if modules == "backbone" else ""
    return {name: shape for name, shape in named.items() if name.startswith(beginning) and name != "save_counter"}


def _differences(wanted: Shapes, held: Shapes) -> list[str]:
    """What differs, in words; empty where nothing does."""
    other = [
        f"{name} {list(held[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if held.get(name, shape) != shape
    ]
    kinds = {
        "of another shape": other,
        "missing": sorted(wanted.keys() - held.keys()),
        "unknown to it": sorted(held.keys() - wanted.keys()),
    }
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
