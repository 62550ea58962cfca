"""CVRL's pre-training and linear evaluation (Qian et al. 2021), as changes of the baseline's settings.

P = the paper (Du et al. 2021), C = CVRL's paper, G = Model Garden: its package, or the YAML that it published for CVRL
(official/projects/video_ssl/configs/experiments/cvrl_pretrain_k600_200ep.yaml, cvrl_linear_eval_k600.yaml), ? = our
choice. Amounts are the paper's; the profiles translate them.
"""

from collections.abc import Mapping

from ablations.toggles import BACKBONE, OPTIMIZER
from harness.config import objectives
from harness.config.toggles import PaperAmount

# C, G; in pre-training the Garden's reader takes them from its code and ignores the configuration.
_CROPS = {
    "aug_min_aspect_ratio": 0.5,
    "aug_max_aspect_ratio": 2.0,
    "aug_min_area_ratio": PaperAmount("least_area", 0.3),
    "aug_max_area_ratio": 1.0,
    "aug_type": None,
    "mixup_and_cutmix": None,
    "one_hot": True,
}
_MODEL = {
    "model_type": "video_ssl_model",
    "dropout_rate": 0.0,  # this head has no dropout, whatever the rate
    "hidden_dim": PaperAmount("width", 2048),  # C, G
    "hidden_norm_activation.activation": "relu",  # G
    "hidden_norm_activation.norm_momentum": 0.997,  # G
    "hidden_norm_activation.norm_epsilon": 1e-5,  # G
}
_LOSSES = {
    "one_hot": True,
    "label_smoothing": 0.0,
    "normalize_hidden": True,  # C, G
    "temperature": 0.1,  # C, G
}
_NOT_ADAPTED = ["batch_normalization", "bias"]
_LARS = {
    "name": "LARS",
    "momentum": 0.9,  # C, G
    "eeta": PaperAmount("trust", 0.001),  # G
    "weight_decay_rate": 0.0,  # the loss adds the weight decay
    "nesterov": False,  # G
    "classic_momentum": True,  # G
    "exclude_from_weight_decay": _NOT_ADAPTED,  # ?, has no effect at a rate of 0: the loss decays only kernels
    # ?, as in SimCLR, by the Garden's names.
    "exclude_from_layer_adaptation": _NOT_ADAPTED,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
}


def _schedule(epochs: int, rate: float) -> dict[str, object]:
    return {
        "trainer.train_steps": PaperAmount("stage_epochs", epochs),
        f"{OPTIMIZER}.learning_rate.cosine.decay_steps": PaperAmount("stage_epochs", epochs),
        f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate": PaperAmount("learning_rate", rate),
        f"{OPTIMIZER}.warmup.linear.warmup_steps": PaperAmount("stage_epochs", 5),  # C, G
        f"{OPTIMIZER}.ema": None,
    }


def _under(prefix: str, fields: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{field}": value for field, value in fields.items()}


_BOTH = {
    **_under("task.train_data", _CROPS),
    **_under("task.model", _MODEL),
    **_under("task.losses", _LOSSES),
    "task.validation_data.is_ssl": False,
}

PRE_TRAINING = {
    **_BOTH,
    **_schedule(800, 0.64),  # P
    **_under(f"{OPTIMIZER}.optimizer.lars", _LARS),
    f"{OPTIMIZER}.optimizer.type": "lars",  # P
    objectives.FIELD: objectives.CVRL,
    "network.distortion": PaperAmount("distortion", 1.0),  # times the Garden's strength
    "task.train_data.is_ssl": True,
    "task.train_data.global_batch_size": PaperAmount("clips", 2048),  # P; two clips of each video
    # C, G: statistics of one replica's clips alone would give away which clip belongs to which.
    "task.model.norm_activation.use_sync_bn": True,
    "task.model.hidden_norm_activation.use_sync_bn": True,
    "task.model.normalize_feature": False,  # G
    "task.model.hidden_layer_num": PaperAmount("hidden_layers", 3),  # C, G
    "task.model.projection_dim": 128,  # C, G
    "task.losses.l2_weight_decay": 1e-6,  # C, G
}
# Settings of the baseline's optimizer, which the pre-training's configuration does not have.
REMOVED_IN_PRE_TRAINING = (f"{OPTIMIZER}.optimizer.sgd.",)

LINEAR_EVALUATION = {
    **_BOTH,
    **_schedule(100, 64.0),  # P
    objectives.FIELD: objectives.LINEAR,
    f"{OPTIMIZER}.optimizer.sgd.nesterov": False,  # G
    "task.init_checkpoint_modules": "backbone",
    "task.freeze_backbone": True,
    # In a frozen backbone, batch normalization uses its recorded statistics, but stochastic depth would stay active.
    f"{BACKBONE}.stochastic_depth_drop_rate": 0.0,
    # C, G: twice the frames of the pre-training, which has the recipe's.
    "task.train_data.feature_shape[0]": PaperAmount("linear_frames", 64),
    "task.validation_data.feature_shape[0]": PaperAmount("linear_frames", 64),
    "task.train_data.is_ssl": False,
    "task.train_data.global_batch_size": PaperAmount("clips", 1024),  # P
    "task.model.norm_activation.use_sync_bn": False,
    "task.model.hidden_norm_activation.use_sync_bn": False,  # the Garden wants the same, though there is no such layer
    "task.model.normalize_feature": True,  # G: features of length one, or the rate would be far too high
    "task.model.hidden_layer_num": 0,  # G
    "task.model.projection_dim": PaperAmount("classes", 1),  # one for each class
    "task.losses.l2_weight_decay": 0.0,  # G
}
