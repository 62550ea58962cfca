"""Makes the random draws of the Model Garden's input pipeline a function of a seed.

The Garden draws with TensorFlow's stateful generators, which give other numbers in every process, and in every order of
parallel calls. While a clip's graph is traced under :func:`fixed_by`, those functions are replaced by their stateless
namesakes, so the same Garden code draws the same crop, flip and policy for the same seed: in any process, in parallel,
and after a resumption.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import tensorflow as tf


@contextlib.contextmanager
def fixed_by(seed: tf.Tensor) -> Iterator[None]:
    """While active, each call of a random function of TensorFlow draws from `seed` and the call's number.

    Args:
      seed: integer tensor of shape [2].
    """
    calls = itertools.count()

    def with_seed(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def draw(*args: Any, seed: Any = None, name: str | None = None, **kwargs: Any) -> tf.Tensor:
            del seed, name  # the caller's own seed would make all clips alike
            return function(*args, seed=next_seed(), **kwargs)

        return draw

    def next_seed() -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(seed, next(calls))

    def gamma(shape: Any, alpha: Any, beta: Any = None, dtype: tf.DType = tf.float32) -> tf.Tensor:
        return tf.random.stateless_gamma(shape, next_seed(), alpha, beta=beta, dtype=dtype)

    def uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: tf.DType = tf.float32, seed: Any = None) -> Any:
        del seed
        return tf.random.stateless_uniform(shape, next_seed(), minval=minval, maxval=maxval, dtype=dtype)

    def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: tf.DType = tf.float32) -> tf.Tensor:
        return tf.random.stateless_normal(shape, next_seed(), mean=mean, stddev=stddev, dtype=dtype)

    replaced = (
        (tf.random, "uniform", uniform),
        (tf.random, "normal", normal),
        (tf.random, "gamma", gamma),
        (tf.random, "shuffle", with_seed(tf.random.experimental.stateless_shuffle)),
        (tf.image, "random_crop", with_seed(tf.image.stateless_random_crop)),
        (tf.image, "sample_distorted_bounding_box", with_seed(tf.image.stateless_sample_distorted_bounding_box)),
    )
    with contextlib.ExitStack() as stack:
        for module, name, function in replaced:
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def stateful_draws(graph: tf.Graph) -> list[str]:
    """Types of the stateful random operations in a graph and its functions; empty where every draw has a seed."""
    definition = graph.as_graph_def()
    nodes = itertools.chain(definition.node, *(function.node_def for function in definition.library.function))
    kinds = {node.op for node in nodes}
    return sorted(kind for kind in kinds if kind.startswith(("Random", "SampleDistortedBoundingBox", "Multinomial")))
