"""Makes the random draws of the Model Garden, in its input pipeline and in its networks, a function of a seed.

The Garden draws with TensorFlow's stateful generators, which give other numbers in every process and in every order of
parallel calls. While a clip's graph is traced under :func:`fixed_by`, those functions are replaced by their stateless
counterparts, so the same Garden code draws the same crop, flip and policy for the same seed: in any process, in
parallel, and after a resumption. A train step traced this way draws the same dropout and stochastic depth for the same
seed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

# The seeds of coming calls, separate for each thread: replicas are traced in threads that take turns.
_seeds = threading.local()


@contextlib.contextmanager
def fixed_by(seed: tf.Tensor) -> Iterator[None]:
    """Makes this thread's calls of TensorFlow's random functions draw from `seed` and the number of the call.

    Args:
      seed: integer tensor of shape [2].
    """
    _replace_once()
    before = getattr(_seeds, "coming", None)
    _seeds.coming = (tf.random.experimental.stateless_fold_in(seed, number) for number in itertools.count())
    try:
        yield
    finally:
        _seeds.coming = before


def _with_seed(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def draw(next_seed: tf.Tensor, *args: Any, seed: Any = None, name: str | None = None, **kwargs: Any) -> tf.Tensor:
        del seed, name  # the caller's own seed would make all clips alike
        return function(*args, seed=next_seed, **kwargs)

    return draw


def _uniform(
    next_seed: tf.Tensor,
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: tf.DType = tf.float32,
    seed: Any = None,
) -> tf.Tensor:
    del seed
    return tf.random.stateless_uniform(shape, next_seed, minval=minval, maxval=maxval, dtype=dtype)


def _normal(
    next_seed: tf.Tensor, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    return tf.random.stateless_normal(shape, next_seed, mean=mean, stddev=stddev, dtype=dtype)


def _gamma(next_seed: tf.Tensor, shape: Any, alpha: Any, beta: Any = None, dtype: tf.DType = tf.float32) -> tf.Tensor:
    return tf.random.stateless_gamma(shape, next_seed, alpha, beta=beta, dtype=dtype)


def _dropout(
    next_seed: tf.Tensor, x: Any, rate: Any, noise_shape: Any = None, seed: Any = None, name: str | None = None
) -> tf.Tensor:
    del seed
    return tf.nn.experimental.stateless_dropout(x, rate, next_seed, noise_shape=noise_shape, name=name)


@functools.cache
def _replace_once() -> None:
    """Wraps TensorFlow's random functions, so that under :func:`fixed_by` the stateless ones are called.

    The wrappers stay: removing them would not be safe while another thread is under :func:`fixed_by`.
    """
    for module, name, stateless in (
        (tf.random, "uniform", _uniform),
        (tf.random, "normal", _normal),
        (tf.random, "gamma", _gamma),
        (tf.random, "shuffle", _with_seed(tf.random.experimental.stateless_shuffle)),
        (tf.image, "random_crop", _with_seed(tf.image.stateless_random_crop)),
        (tf.image, "sample_distorted_bounding_box", _with_seed(tf.image.stateless_sample_distorted_bounding_box)),
        (tf.nn, "dropout", _dropout),
        (tf.compat.v2.nn, "dropout", _dropout),  # where Keras looks for it
    ):
        setattr(module, name, _switch(getattr(module, name), stateless))


def _switch(stateful: Callable[..., Any], stateless: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stateful)
    def draw(*args: Any, **kwargs: Any) -> Any:
        seeds = getattr(_seeds, "coming", None)
        return stateful(*args, **kwargs) if seeds is None else stateless(next(seeds), *args, **kwargs)

    return draw


def stateful_draws(graph: tf.Graph) -> list[str]:
    """Returns the types of stateful random operations in a graph and its functions; empty if every draw has a seed."""
    definition = graph.as_graph_def()
    nodes = itertools.chain(definition.node, *(function.node_def for function in definition.library.function))
    kinds = {node.op for node in nodes}
    return sorted(kind for kind in kinds if kind.startswith(("Random", "SampleDistortedBoundingBox", "Multinomial")))
