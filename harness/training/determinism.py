"""Sets what a run's numbers depend on in its process: the seed, deterministic operations, the precision."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import tensorflow as tf
import tf_keras
from official.modeling import performance

from harness.config.experiment import Run


def seeded(seed: int) -> None:
    """Makes initialisation depend on the seed alone, and makes operations deterministic."""
    tf_keras.utils.set_random_seed(seed % 2**32)
    tf.config.experimental.enable_op_determinism()
    # Constant folding rewrites gradients differently when replicas share a graph and when each has its own, so the last
    # digits would depend on how replicas are spread over processes.
    tf.config.optimizer.set_experimental_options({"constant_folding": False})


@contextlib.contextmanager
def of_run(run: Run) -> Iterator[None]:
    """Sets a run's seed and precision while it is carried out, and clears the state of the run before it."""
    tf_keras.backend.clear_session()
    gc.collect()
    seeded(run.seed)
    performance.set_mixed_precision_policy(run.settings["runtime.mixed_precision_dtype"])
    try:
        yield
    finally:
        performance.set_mixed_precision_policy("float32")
