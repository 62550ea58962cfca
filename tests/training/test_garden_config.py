"""Settings against the Model Garden itself: the built configuration, model, data and optimizer show each toggle."""

import pytest
import tensorflow as tf
import tf_keras
from official.core import train_utils
from official.vision.dataloaders import video_input
from official.vision.modeling.backbones import resnet_3d
from official.vision.modeling.layers import nn_blocks_3d, nn_layers
from official.vision.ops import augment
from official.vision.tasks import video_classification

from ablations.profiles import PAPER, QUICK
from ablations.toggles import BACKBONE, DEPTH, DSTEM, EMA, EP, FRAMES, LS, RA, SD, SE, SJ, TABLE_2, WD
from harness.config import experiment, network
from harness.config.experiment import DatasetInfo, SettingsError
from harness.config.studies import Cell
from harness.training import garden_config

KINETICS = DatasetInfo("kinetics400", 400, 215_570, 17_706, "ab" * 32)


def planned(*applied, profile=QUICK):
    return experiment.complete(Cell(applied), profile, KINETICS, replicas=1)


def config_of(*applied, profile=QUICK):
    run = planned(*applied, profile=profile)
    return garden_config.build(run.settings, run.bookkeeping)


def optimized(*applied, profile=QUICK):
    """The Garden's own task, with the optimizer it builds."""
    config = config_of(*applied, profile=profile)
    task = video_classification.VideoClassificationTask(config.task)
    return config, task, train_utils.create_optimizer(task, config)


def built(*applied, profile=QUICK):
    """The Garden's own task, with the model and optimizer it builds."""
    config, task, optimizer = optimized(*applied, profile=profile)
    return config, task, task.build_model(), optimizer


@pytest.fixture
def blank(monkeypatch):
    """Kernels are not drawn, which takes a third of the time of large networks, but zero."""
    zeros = tf_keras.initializers.Zeros()
    monkeypatch.setattr(
        tf_keras.initializers.VarianceScaling, "__call__", lambda _, shape, dtype=None, **words: zeros(shape, dtype)
    )


def layers_of(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def stems(model):
    return [layer.kernel_size for layer in model.backbone.layers if isinstance(layer, tf_keras.layers.Conv3D)]


def drop_rates(model):
    blocks = layers_of(model, nn_blocks_3d.BottleneckBlock3D)
    return [block._stochastic_depth._drop_rate if block._stochastic_depth else 0.0 for block in blocks]


def one_loss(task, label_smoothing):
    """The task's loss of one confident prediction, and the same by hand."""
    labels, outputs = tf.one_hot([0], 400), tf.nn.softmax(5.0 * tf.one_hot([0], 400))
    smooth = labels * (1 - label_smoothing) + label_smoothing / 400
    by_hand = -tf.reduce_sum(smooth * tf.math.log(outputs))
    return float(task.build_losses(labels, outputs)[task.loss]), float(by_hand)


def test_baseline_has_none_of_the_toggles():
    config, task, model, optimizer = built()
    assert stems(model) == [(5, 7, 7)]
    assert drop_rates(model) == [0.0] * 4
    assert not layers_of(model, nn_layers.SqueezeExcitation)
    assert one_loss(task, 0.0)[0] == pytest.approx(one_loss(task, 0.0)[1], rel=1e-5)
    assert config.task.train_data.aug_type is None
    assert isinstance(optimizer, tf_keras.optimizers.legacy.SGD)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_label_smoothing_is_in_the_loss():
    _, task, _ = optimized(LS.at())
    ours, by_hand = one_loss(task, 0.1)
    assert ours == pytest.approx(by_hand, rel=1e-5)
    assert ours > 1.2 * one_loss(optimized()[1], 0.0)[0]


def test_stochastic_depth_rises_by_stage():
    _, _, model, _ = built(SD.at())
    assert drop_rates(model) == pytest.approx([0.08, 0.12, 0.16, 0.20])


@pytest.mark.parametrize(("applied", "decay"), [((), 1e-4), ((WD.at(),), 4e-5)])
def test_weight_decay_is_in_the_kernels(applied, decay):
    _, _, model, _ = built(*applied)
    kernels = [layer for layer in layers_of(model, tf_keras.layers.Conv3D) if layer.kernel_regularizer is not None]
    assert len(kernels) > 10
    # The Garden halves it, so that l2 here equals tf.nn.l2_loss there.
    assert {round(float(layer.kernel_regularizer.l2), 9) for layer in kernels} == {decay / 2}


def test_epochs_set_steps_and_schedule():
    for applied, steps in (((), 42_104), ((EP.at(),), 73_682)):
        config, _, optimizer = optimized(*applied, profile=PAPER)
        assert config.trainer.train_steps == steps
        schedule = optimizer.learning_rate
        assert float(schedule(1053)) == pytest.approx(0.8, rel=2e-3)
        assert float(schedule(steps)) == pytest.approx(0.0, abs=1e-6)
        assert float(schedule(steps // 2)) == pytest.approx(0.4, rel=1e-3)


@pytest.mark.parametrize(("applied", "least"), [((), 0.49), ((SJ.at(),), 0.08)])
def test_scale_jittering_reaches_the_crop(applied, least):
    parser = video_input.Parser(config_of(*applied).task.train_data)
    assert (parser._min_area_ratio, parser._max_area_ratio) == (least, 1.0)


def test_squeeze_and_excitation_is_in_every_block():
    _, _, model, _ = built(SE.at(), DEPTH.at(200))
    excitations = layers_of(model, nn_layers.SqueezeExcitation)
    assert len(excitations) == len(layers_of(model, nn_blocks_3d.BottleneckBlock3D)) == 7
    assert {layer._se_ratio for layer in excitations} == {0.25}


def test_d_stem_has_three_convolutions():
    _, _, model, _ = built(DSTEM.at())
    assert stems(model) == [(5, 3, 3), (1, 3, 3), (1, 3, 3)]


def test_randaugment_is_the_parsers_policy():
    augmenter = video_input.Parser(config_of(RA.at(9), profile=PAPER).task.train_data)._augmenter
    assert isinstance(augmenter, augment.RandAugment)
    assert (augmenter.num_layers, augmenter.magnitude) == (2, 9)
    assert (augmenter.cutout_const, augmenter.translate_const) == (40, 10)


def test_all_toggles_together():
    config, task, model, _ = built(*(toggle.at() for toggle in TABLE_2))
    assert stems(model) == [(5, 3, 3), (1, 3, 3), (1, 3, 3)]
    assert drop_rates(model) == pytest.approx([0.08, 0.12, 0.16, 0.20])
    assert len(layers_of(model, nn_layers.SqueezeExcitation)) == 4
    assert one_loss(task, 0.1)[0] == pytest.approx(one_loss(task, 0.1)[1], rel=1e-5)
    assert config.task.train_data.aug_type.type == "randaug"
    assert config.task.train_data.aug_min_area_ratio == 0.08
    assert config.trainer.train_steps == planned(EP.at()).settings["trainer.train_steps"]


@pytest.mark.parametrize(
    "applied",
    [(), (SE.at(),), (SE.at(), DSTEM.at()), (SE.at(), DSTEM.at(), DEPTH.at(101)), (DEPTH.at(200), FRAMES.at(48))],
    ids=["plain", "se", "se-dstem", "se-dstem-101", "200-48"],
)
@pytest.mark.parametrize("profile", [QUICK, PAPER], ids=["quick", "paper"])
def test_counted_parameters_are_the_built_models(applied, profile, blank):
    run = planned(*applied, profile=profile)
    assert built(*applied, profile=profile)[2].count_params() == network.count(run.settings).params


@pytest.mark.parametrize("applied", [(), (SE.at(), DSTEM.at(), DEPTH.at(200), FRAMES.at(48))], ids=["plain", "rs"])
def test_counted_multiply_adds_are_the_built_layers(applied, blank):
    """Sends a clip through the built network and adds up what each convolution and dense layer does to it."""
    run = planned(*applied)
    model = built(*applied)[2]
    total = []

    def adding_up(layer, call):
        def called(*args, **kwargs):
            output = call(*args, **kwargs)
            total.append(int(tf.size(layer.kernel)) // layer.kernel.shape[-1] * int(tf.size(output)))
            return output

        return called

    for layer in layers_of(model, (tf_keras.layers.Conv3D, tf_keras.layers.Conv2D, tf_keras.layers.Dense)):
        layer.call = adding_up(layer, layer.call)
    shape = [run.settings[f"task.validation_data.feature_shape[{axis}]"] for axis in range(4)]
    model({"image": tf.zeros([1, *shape])}, training=False)
    assert sum(total) == network.count(run.settings).multiply_adds


def test_settings_and_configuration_must_agree():
    run = planned()
    incomplete = {field: value for field, value in run.settings.items() if field != "task.losses.label_smoothing"}
    with pytest.raises(SettingsError, match=r"task.losses.label_smoothing is not stated"):
        garden_config.build(incomplete, run.bookkeeping)
    with pytest.raises(SettingsError, match="does not know a setting"):
        garden_config.build({**run.settings, "task.losses.focal": 1.0}, run.bookkeeping)


def test_a_network_of_a_known_depth_must_be_the_gardens():
    run = planned(profile=PAPER)
    with pytest.raises(SettingsError, match="a network of 50 layers is"):
        garden_config.register_network({**run.settings, "network.blocks[2]": 7})
    assert resnet_3d.RESNET_SPECS[50][2] == ("bottleneck3d", 256, 6)


def test_ema_wraps_the_optimizer():
    _, _, optimizer = optimized(EMA.at())
    assert type(optimizer).__name__ == "ExponentialMovingAverage"


def test_every_field_of_the_backbone_is_ours():
    config = config_of().task.model.backbone.as_dict()
    stated = {field for field in planned().settings if field.startswith(BACKBONE)}
    assert {field.rsplit(".", 1)[-1].split("[")[0] for field in stated} == set(config["resnet_3d_rs"])
