"""What the contrastive loss is computed of, on one device and on two, and the task that trains by it."""

import numpy as np
import tensorflow as tf

from ablations.profiles import QUICK
from ablations.stages import CVRL
from harness.config import experiment
from harness.config.experiment import DatasetInfo, Overrides
from harness.config.studies import Cell
from harness.training import garden_config
from harness.training.task import Replicas

BATCH = 6
EMBEDDINGS = np.random.default_rng(1).normal(size=(2, BATCH, 5)).astype(np.float32)
EMBEDDINGS[1, :4] += 2 * EMBEDDINGS[0, :4]
MATRIX = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
CLIPS = np.random.default_rng(3).integers(0, 256, (BATCH, 16, 20, 20, 3), dtype=np.uint8)
DRAWN = {
    "order": np.tile(np.array([1, 0, 3, 2], np.int32), (BATCH, 2, 1)),
    **{
        name: np.full((BATCH, 2), value, np.float32)
        for name, value in {"brightness": 1.1, "contrast": 0.7, "saturation": 1.2, "hue": 0.1, "sigma": 0.8}.items()
    },
    "grey": np.zeros((BATCH, 2), bool),
    "solarized": np.zeros((BATCH, 2), bool),
}
DECAY = 0.1
ALONE = Replicas(1, 0, tf.identity)


def settings_of(*applied):
    """Settings of a small stand-in, and what is bookkeeping."""
    cell = Cell(applied, stages=(CVRL,))
    run = experiment.complete(cell, QUICK, DatasetInfo("clips", 8, 32, 8), Overrides(steps=20, batch=BATCH), replicas=1)
    small = {"task.model.norm_activation.use_sync_bn": True, "task.model.hidden_norm_activation.use_sync_bn": True}
    small |= {f"task.train_data.feature_shape[{side}]": 20 for side in (1, 2)}
    return {**run.settings, **small}, run.bookkeeping


def config_of(*applied):
    """The configuration of the stand-in."""
    return garden_config.build(*settings_of(*applied))
