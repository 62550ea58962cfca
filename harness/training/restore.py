"""Loads the weights of one run into the network of another: either all that are wanted, or none and an error.

TensorFlow by itself loads what two networks have in common and skips the rest of the checkpoint, so half of another
network could be loaded unnoticed. This module first compares the variables of both by name and shape.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from harness.store.attempts import RunError

# TensorFlow's suffix of a variable's name in a checkpoint.
_ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"
# The number of differing variables of each kind that a message names.
_NAMED = 3

Shapes = Mapping[str, tuple[int, ...]]


def take(model: tf_keras.Model, path: str, modules: str) -> list[str]:
    """Loads weights of another run into a network.

    Args:
      model: the network; variables that are not loaded keep their initial values.
      path: path of the weights that the other run left.
      modules: "backbone" (everything except the head) or "all".

    Returns:
      The names of the variables that were loaded.

    Raises:
      RunError: the weights are not exactly those of the network's modules; the message names the differences, and
        nothing is loaded.
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
    """Returns the parts of a network under the names that they have in a run's weights."""
    if modules == "backbone":
        return {"backbone": model.backbone}
    if modules == "all":
        return {"model": model, **model.checkpoint_items}
    raise RunError(f"task.init_checkpoint_modules={modules}: expected backbone or all")


def variables(root: Any) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of the variables in a checkpoint of an object; the name is the shortest path to one."""
    view = tf.train.TrackableView(root)
    shapes: dict[str, tuple[int, ...]] = {}
    seen, queue = {id(root)}, collections.deque([(root, "")])
    while queue:
        trackable, path = queue.popleft()
        if isinstance(trackable, tf.Variable):
            shapes[path] = tuple(trackable.shape.as_list())
        for name, child in view.children(trackable).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((child, f"{path}/{name}" if path else name))
    return shapes


def _held(path: str, modules: str) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of the variables in saved weights that belong to some modules."""
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: no weights that can be read ({' '.join(str(error).split())[:200]})") from error
    named = {name.removesuffix(_ENDING): tuple(shape) for name, shape in shapes.items() if name.endswith(_ENDING)}
    beginning = "backbone/" if modules == "backbone" else ""
    return {name: shape for name, shape in named.items() if name.startswith(beginning) and name != "save_counter"}


def _differences(wanted: Shapes, held: Shapes) -> list[str]:
    """Describes the differences between wanted and saved variables; empty if there are none."""
    reshaped = [
        f"{name} {list(held[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if held.get(name, shape) != shape
    ]
    kinds = {
        "of another shape": reshaped,
        "missing": sorted(wanted.keys() - held.keys()),
        "unknown to it": sorted(held.keys() - wanted.keys()),
    }
    return [f"{len(names)} {kind} ({_first_names(names)})" for kind, names in kinds.items() if names]


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
