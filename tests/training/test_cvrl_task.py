"""Contrastive pre-training: the loss against NumPy and the Garden, the same on one device and two, LARS by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import train_utils
from official.projects.video_ssl.losses import losses as gardens

from ablations.toggles import DEPTH, DSTEM, OPTIMIZER, SD, SE
from harness.config import network
from harness.config.experiment import SettingsError
from harness.config.toggles import VALUE, Toggle
from harness.training import cvrl_task, garden_config
from tests.support import forked
from tests.support.contrasts import ALONE, BATCH, DECAY, EMBEDDINGS, MATRIX, config_of, settings_of


def by_hand(first, second, temperature):
    """InfoNCE, written out clip by clip: its partner against all other clips of the batch."""
    clips = np.concatenate([first, second]).astype(np.float64)
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    count, total = len(first), 0.0
    for one in range(2 * count):
        similar = {other: clips[one] @ clips[other] / temperature for other in range(2 * count) if other != one}
        partner = (one + count) % (2 * count)
        total += np.log(sum(np.exp(value) for value in similar.values())) - similar[partner]
    hits = [np.argmax(clips[count:] @ clips[one]) == one for one in range(count)]
    return total / count, np.mean(hits)


def test_the_loss_is_the_one_written_out():
    found = cvrl_task.loss(tf.concat(list(EMBEDDINGS), 0), 0.1, True, ALONE)
    value, accuracy = by_hand(*EMBEDDINGS, 0.1)
    assert float(found["contrastive_loss"]) == pytest.approx(value, rel=1e-5)
    assert float(found["contrast_acc"]) == pytest.approx(accuracy)
    assert 0 < accuracy < 1


@pytest.mark.parametrize("normalized", [False, True])
def test_the_loss_of_one_replica_is_the_gardens(normalized):
    dense = tf_keras.layers.Dense(2)
    dense.build([None, 3])
    embeddings = tf.concat(list(EMBEDDINGS), 0)
    ours = cvrl_task.loss(embeddings, 0.3, normalized, ALONE)
    theirs = gardens.contrastive_loss(embeddings, 1, normalized, 0.3, dense, 0.0)
    for name, value in ours.items():
        assert float(value) == pytest.approx(float(theirs[name]), rel=1e-5), name


def test_weight_decay_is_half_the_sum_of_squares_of_the_kernels_alone():
    """Biases, and batch normalization's scale and offset, are free of it."""
    layers = [tf_keras.layers.Dense(4), tf_keras.layers.BatchNormalization(), tf_keras.layers.Dense(2)]
    model = tf_keras.Sequential([tf_keras.Input([3]), *layers])
    draw = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(size=variable.shape))
    config = config_of().task
    config.losses.l2_weight_decay = DECAY
    task = cvrl_task.ContrastiveTask(config, None, None, replicas=lambda: ALONE)
    embeddings = tf.constant(EMBEDDINGS.reshape(2 * BATCH, -1))
    with tf.GradientTape() as tape:
        losses, measured = task.build_losses(embeddings, 1, model)
    gradients = tape.gradient(losses["total_loss"], model.trainable_variables)
    kernels = [layers[0].kernel, layers[2].kernel]
    decay = DECAY * sum((kernel.numpy().astype(np.float64) ** 2).sum() for kernel in kernels) / 2
    value, _ = by_hand(*EMBEDDINGS, 0.1)
    assert float(measured["reg_loss"]) == pytest.approx(decay, rel=1e-5)
    assert float(losses["total_loss"]) == pytest.approx(value + decay, rel=1e-5)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if any(variable is kernel for kernel in kernels):
            assert gradient.numpy() == pytest.approx(DECAY * variable.numpy(), rel=1e-5)
        else:
            assert gradient is None, variable.name


@pytest.fixture
def on_replicas(once):
    """What a process with two devices computed."""

    def compute(folder):
        code, output = forked.run("tests.support.contrast_on_replicas", [])
        assert code == 0, output[-2000:]
        (folder / "found.json").write_text(output.splitlines()[-1])

    return json.loads((once("contrast-on-replicas", compute) / "found.json").read_text())


def test_two_replicas_have_the_loss_and_gradient_of_the_global_batch(on_replicas):
    value, accuracy = by_hand(*(EMBEDDINGS @ MATRIX), 0.1)
    matrix = tf.Variable(MATRIX)
    with tf.GradientTape() as tape:
        embeddings = tf.concat([clips @ matrix for clips in EMBEDDINGS], 0)
        alone = cvrl_task.loss(embeddings, 0.1, True, ALONE)["contrastive_loss"]
    gradient = tape.gradient(alone, matrix).numpy()
    for found in (on_replicas["one"], on_replicas["two"]):
        assert found["loss"] == pytest.approx(value, rel=1e-5)
        assert found["accuracy"] == pytest.approx(accuracy)
        assert np.array(found["gradient"]) == pytest.approx(gradient, rel=1e-4, abs=1e-5)


def test_two_replicas_train_as_one_device(on_replicas):
    """Statistics of batch normalization are synchronised, so nothing but rounding depends on the split."""
    one, two = on_replicas["one"], on_replicas["two"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    # What the normalization after it takes away again, a bias, moves by rounding alone.
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-3, abs=1e-3)
    assert one["losses"][2] < one["losses"][0]


@pytest.mark.parametrize("where", ["one", "two"])
def test_a_step_applies_the_gradient_of_the_global_batch_with_weight_decay(on_replicas, where):
    """On its scale too, of which LARS and momentum leave little to see."""
    found, expected = on_replicas[where]["applied"], on_replicas["written out"]["applied"]
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    # All but the bias that the normalization takes away, whose gradient is rounding, are well above the tolerance.
    assert sum(np.abs(one).max() > 1e-2 for one in expected) == 5


def test_every_option_of_the_network_is_in_the_backbone():
    settings, bookkeeping = settings_of(SE.at(), DSTEM.at(), SD.at(), DEPTH.at(101))
    config = garden_config.build(settings, bookkeeping)
    model = cvrl_task.ContrastiveTask(config.task, None, None).build_model()
    assert model.count_params() == network.count(settings).params
    names = [layer.name for layer in model.backbone._flatten_layers()]
    assert sum("squeeze_excitation" in name for name in names) == 5
    assert sum("stochastic_depth" in name for name in names) == 5
    stem = [layer.kernel_size for layer in model.backbone.layers if isinstance(layer, tf_keras.layers.Conv3D)]
    assert stem == [(5, 3, 3), (1, 3, 3), (1, 3, 3)]
    head = [layer.units for layer in model.layers if isinstance(layer, tf_keras.layers.Dense)]
    assert head == [128, 128]


def test_what_is_not_done_to_two_clips_is_refused():
    stride = Toggle("rs", "RS", "", "", {"task.train_data.random_stride_range": VALUE}, default=1, bounds=(0, 2))
    with pytest.raises(SettingsError, match="random_stride_range=1: two clips of a video are read with 0 only"):
        settings_of(stride.at())


def test_lars_is_the_step_written_out():
    """Kernels by their trust ratio, with momentum; biases and batch normalization as plain momentum has them."""
    settings, bookkeeping = settings_of()
    changed = {
        f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate": 4.0,
        f"{OPTIMIZER}.optimizer.lars.eeta": 0.001,
    }
    config = garden_config.build({**settings, **changed}, bookkeeping)
    task = cvrl_task.ContrastiveTask(config.task, None, None)
    config.trainer.optimizer_config.warmup.type = None
    optimizer = train_utils.create_optimizer(task, config)
    rng = np.random.default_rng(4)
    start = {name: rng.normal(size=(3, 2)).astype(np.float32) for name in ("conv/kernel", "dense/bias")}
    start["sync_batch_normalization/gamma"] = np.ones((2, 2), np.float32)
    variables = [tf.Variable(value, name=name) for name, value in start.items()]
    expected = {name: (value.astype(np.float64), np.zeros(value.shape)) for name, value in start.items()}
    for step in range(3):
        gradients = [rng.normal(size=variable.shape).astype(np.float32) for variable in variables]
        optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
        rate = 4.0 * (1 + np.cos(np.pi * step / 20)) / 2
        for name, gradient in zip(start, gradients, strict=True):
            value, velocity = expected[name]
            trust = 0.001 * np.linalg.norm(value) / np.linalg.norm(gradient) if "kernel" in name else 1.0
            velocity = 0.9 * velocity + rate * trust * gradient
            expected[name] = (value - velocity, velocity)
    for variable, (value, _) in zip(variables, expected.values(), strict=True):
        assert variable.numpy() == pytest.approx(value, rel=1e-5, abs=1e-5)
