"""Evaluates an untrained network on so many CPU replicas; prints ids and losses as JSON. Run by test_runner.

Logical devices can be set up only before TensorFlow starts, so this needs a process of its own.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf
from official.core import train_utils

from ablations.profiles import QUICK
from harness import experiment, garden, seeding
from harness.data import manifest, reader
from harness.studies import Cell
from harness.task import VideoTask
from harness.workspace import facts

replicas, folder = int(sys.argv[1]), Path(sys.argv[2])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
seeding.seeded(0)
found = manifest.load(folder)
run = experiment.complete(Cell(()), QUICK, facts(found), replicas=1)
settings, bookkeeping = experiment.for_protocol(run, experiment.Protocol(2, 3, 32))
config = garden.build(settings, bookkeeping | {"task.validation_data.global_batch_size": 8})
strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
with strategy.scope():
    source = reader.Source.of(str(folder), found.splits["validation"], len(found.classes))
    task = VideoTask(config.task, None, source)
    train_utils.create_trainer(config, task, train=False, evaluate=True).evaluate(tf.constant(-1))
ids, losses = task.predictions.media_id, [float(loss) for loss in task.predictions.loss]
ordered = [loss for _, loss in sorted(zip(ids, losses, strict=True))]
print(json.dumps({"replicas": strategy.num_replicas_in_sync, "ids": ids, "losses": ordered}))
