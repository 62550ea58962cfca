"""Computes the contrastive loss, and trains by it, on one device and on two replicas; prints the results as JSON.

Run by test_contrastive: logical devices can be set up only before TensorFlow starts, so it needs a process of its own.
"""

import json

import tensorflow as tf
import tf_keras
from official.core import train_utils

from harness.training import cvrl_task, determinism
from harness.training.task import Replicas
from tests.support.contrasts import ALONE, BATCH, CLIPS, DECAY, DRAWN, EMBEDDINGS, MATRIX, config_of


def shared_out(strategy, batch):
    """Each replica's part of a global batch, given as arrays by name."""
    size = BATCH // strategy.num_replicas_in_sync

    def part(context):
        first = int(context.replica_id_in_sync_group) * size
        return {name: tf.constant(value[first : first + size]) for name, value in batch.items()}

    return strategy.experimental_distribute_values_from_function(part)


def losses(strategy):
    """Loss and accuracy of fixed embeddings, and the loss's gradient for a matrix that all replicas share."""
    with strategy.scope():
        matrix = tf.Variable(MATRIX)

    @tf.function
    def step(clips):
        def on_replica(own):
            replicas = Replicas.of_strategy()
            with tf.GradientTape() as tape:
                embeddings = tf.concat([own["first"] @ matrix, own["second"] @ matrix], 0)
                found = cvrl_task.loss(embeddings, 0.1, True, replicas)
                value = found["contrastive_loss"] / replicas.count
            return value, found["contrast_acc"] / replicas.count, tape.gradient(value, matrix)

        found = strategy.run(on_replica, args=(clips,))
        return [strategy.reduce("SUM", one, axis=None) for one in found]

    value, accuracy, gradient = step(shared_out(strategy, {"first": EMBEDDINGS[0], "second": EMBEDDINGS[1]}))
    return {"loss": float(value), "accuracy": float(accuracy), "gradient": gradient.numpy().tolist()}


class SmallTask(cvrl_task.ContrastiveTask):
    """The task with a network that is traced in seconds."""

    def build_model(self):
        image = tf_keras.Input([8, 20, 20, 3], name="image")
        found = tf_keras.layers.Conv3D(4, 3, strides=2)(image)
        found = tf_keras.layers.experimental.SyncBatchNormalization()(found)
        found = tf_keras.layers.GlobalAveragePooling3D()(tf.nn.relu(found))
        return tf_keras.Model({"image": image}, tf_keras.layers.Dense(5)(found))


def step_of(strategy, task, model, optimizer):
    """A train step on the whole batch: gives the loss before it."""
    features = shared_out(strategy, {"image": CLIPS, **DRAWN})

    @tf.function
    def step():
        def on_replica(own):
            return task.train_step((own, None), model, optimizer)[task.loss]

        return strategy.reduce("MEAN", strategy.run(on_replica, args=(features,)), axis=None)

    return lambda: float(step())


def trained(strategy):
    """The loss before each of three steps of a network, and its weights' sums after them."""
    determinism.seeded(0)
    config = config_of()
    with strategy.scope():
        task = SmallTask(config.task, None, None)
        model, optimizer = task.build_model(), train_utils.create_optimizer(task, config)
        # As the trainer does: a step that makes them is traced twice.
        optimizer._create_all_weights(model.trainable_variables)
    step = step_of(strategy, task, model, optimizer)
    found = [step() for _ in range(3)]
    return {"losses": found, "weights": [float(tf.reduce_sum(tf.abs(one))) for one in model.trainable_variables]}


def decayed():
    """The task with a weight decay that shows, and its network as it begins."""
    determinism.seeded(0)
    config = config_of().task
    config.losses.l2_weight_decay = DECAY
    task = SmallTask(config, None, None)
    return task, task.build_model()


def applied(strategy):
    """By variable, the gradient that a train step applies: what plain descent at a rate of one takes away."""
    with strategy.scope():
        task, model = decayed()
        optimizer = tf_keras.optimizers.legacy.SGD(1.0)
        optimizer._create_all_weights(model.trainable_variables)
    before = [one.numpy() for one in model.trainable_variables]
    step_of(strategy, task, model, optimizer)()
    after = [one.numpy() for one in model.trainable_variables]
    return {"applied": [(b - a).ravel().tolist() for b, a in zip(before, after, strict=True)]}


def written_out():
    """By variable, the gradient of the loss of all clips and of both kernels' decay, by one tape on one device."""
    task, model = decayed()
    image = task.for_network({name: tf.constant(value) for name, value in {"image": CLIPS, **DRAWN}.items()})["image"]
    with tf.GradientTape() as tape:
        found = cvrl_task.loss(model(image, training=True), 0.1, True, ALONE)["contrastive_loss"]
        found += DECAY / 2 * tf.add_n([tf.reduce_sum(layer.kernel**2) for layer in (model.layers[1], model.layers[-1])])
    gradients = tape.gradient(found, model.trainable_variables)
    return {"applied": [one.numpy().ravel().tolist() for one in gradients]}


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategies = {
        "one": tf.distribute.OneDeviceStrategy("CPU:0"),
        "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    }
    found = {name: losses(one) | trained(one) | applied(one) for name, one in strategies.items()}
    print(json.dumps({**found, "written out": written_out()}))
