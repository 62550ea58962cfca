"""The state of a process that a run's numbers depend on: its seed, deterministic operations, its precision."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import tensorflow as tf
import tf_keras
from official.modeling import performance

from harness.config.experiment import Run


def seeded(seed: int) -> None:
    """Makes initialisation a function of the seed, and operations deterministic."""
    tf_keras.utils.set_random_seed(seed % 2**32)
    tf.config.experimental.enable_op_determinism()
    # It rewrites gradients differently where replicas share a graph and where each has its own: their last digits would
    # depend on how replicas are spread over processes.
    tf.config.optimizer.set_experimental_options({"constant_folding": False})


@contextlib.contextmanager
def of_run(run: Run) -> Iterator[None]:
    """While active, a run's own seed and precision; nothing is left of the run before it."""
    tf_keras.backend.clear_session()
    gc.collect()
    seeded(run.seed)
    performance.set_mixed_precision_policy(run.settings["runtime.mixed_precision_dtype"])
    try:
        yield
    finally:
        performance.set_mixed_precision_policy("float32")
