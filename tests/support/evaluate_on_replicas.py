"""Evaluates an untrained network on so many CPU replicas, and so many; prints ids and losses as JSON.

    python -m tests.support.evaluate_on_replicas DATA 1 2 4

Run by test_runner: logical devices can be set up only before TensorFlow starts, so it needs a process of its own.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf
from official.core import train_utils

from harness.config import experiment
from harness.config.studies import Cell
from harness.data import manifest, reader
from harness.planning.workspace import facts
from harness.training import determinism, garden_config
from harness.training.task import VideoTask
from tests.support.tiny import TINY


def mirrored(replicas):
    """A strategy over so many devices. Those of one process have to number their groups of devices apart."""
    kind = type("Mirrored", (tf.distribute.MirroredStrategy,), {"_collective_key_base": 1000 * replicas})
    return kind([f"CPU:{index}" for index in range(replicas)])


def evaluated(strategy, folder):
    """Ids of the videos as they came, and their losses in the order of their ids."""
    found = manifest.load(folder)
    run = experiment.complete(Cell(()), TINY, facts(found), replicas=1)
    settings, bookkeeping = experiment.for_protocol(run, run.protocol)
    config = garden_config.build(settings, bookkeeping | {"task.validation_data.global_batch_size": 8})
    with determinism.of_run(run), strategy.scope():
        source = reader.Source.of(str(folder), found.splits["validation"], len(found.classes))
        task = VideoTask(config.task, None, source)
        train_utils.create_trainer(config, task, train=False, evaluate=True).evaluate(tf.constant(-1))
    ids, losses = task.predictions.media_id, [float(loss) for loss in task.predictions.loss]
    ordered = [loss for _, loss in sorted(zip(ids, losses, strict=True))]
    return {"replicas": strategy.num_replicas_in_sync, "ids": ids, "losses": ordered}


if __name__ == "__main__":
    data, *numbers = sys.argv[1:]
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(max(map(int, numbers)))]
    tf.config.set_logical_device_configuration(cpu, devices)
    print(json.dumps([evaluated(mirrored(int(one)), Path(data)) for one in numbers]))
