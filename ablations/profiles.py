"""The two ways to train: the paper's recipe, and a small stand-in that finishes on two CPU cores.

Every leaf of the Model Garden's configuration is stated, under its own dotted name. Where the paper is silent, the
choice is ours or the Garden's, and a comment says so: P = paper, G = Model Garden (its package or its published
YAML), ? = our choice.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ablations.toggles import AXES, BACKBONE, OPTIMIZER
from harness.config.experiment import Profile
from harness.config.toggles import PaperAmount

_DATA_BOTH = {
    "file_type": "tfrecord",
    "compressed_input": False,
    "variant_name": None,
    "feature_shape[0]": PaperAmount(
        "frames", 32
    ),  # P, Table 1: a clip of 32 frames, of which the network sees every second one
    "feature_shape[3]": 3,
    "temporal_stride": 2,  # P, Table 1
    "random_stride_range": 0,
    "num_test_clips": 1,  # while training, one centre view
    "num_test_crops": 1,
    "data_format": "channels_last",
    "dtype": "bfloat16",  # G, on TPU
    "label_dtype": "int32",
    "one_hot": True,
    "shuffle_buffer_size": 64,  # G; so many videos are shuffled at a time, and shards each epoch
    "cycle_length": 10,  # G, shards read side by side
    "block_length": 1,
    "sharding": True,
    "deterministic": True,  # ?, data order is a function of the seed
    "cache": False,
    "zero_centering_image": False,  # G
    "is_multilabel": False,
    "output_audio": False,
    "audio_feature": "",
    "audio_feature_shape": [-1],
    "aug_min_aspect_ratio": 0.5,  # G
    "aug_max_aspect_ratio": 2.0,  # G
    "aug_min_area_ratio": 0.49,  # G
    "aug_max_area_ratio": 1.0,  # G
    "aug_random_rotation": False,
    "aug_type": None,
    "mixup_and_cutmix": None,
    "image_field_key": "image/encoded",
    "label_field_key": "clip/label/index",
    "input_image_format": "jpeg",
}
_TRAIN_DATA = _DATA_BOTH | {
    "split": "train",
    "is_training": True,
    "drop_remainder": True,
    "feature_shape[1]": PaperAmount("pixels", 224),  # P
    "feature_shape[2]": PaperAmount("pixels", 224),
    "min_image_size": 256,  # unused in training: the random resized crop fixes the size
    "global_batch_size": 1024,  # P
    "num_classes": 400,
    "num_examples": 215_570,  # G
    "seed": 0,
}
_VALIDATION_DATA = _DATA_BOTH | {
    "split": "validation",
    "is_training": False,
    "drop_remainder": False,  # the last batch is padded and masked: every video counts once
    "feature_shape[1]": PaperAmount("evaluation_pixels", 224),  # P: trained at 224, evaluated at 256
    "feature_shape[2]": PaperAmount("evaluation_pixels", 224),
    "min_image_size": PaperAmount("evaluation_pixels", 224),
    "num_classes": 400,
    "seed": 0,
}
_MODEL = {
    "model_type": "video_classification",
    "aggregate_endpoints": False,
    "require_endpoints": None,
    "dropout_rate": 0.5,  # P
    "norm_activation.activation": "relu",
    "norm_activation.norm_momentum": 0.9,  # G, package
    "norm_activation.norm_epsilon": 1e-5,  # G, package
    "norm_activation.use_sync_bn": False,  # G
    "backbone.type": "resnet_3d_rs",
}
_BACKBONE = {
    "model_id": PaperAmount("depth", 50),  # P
    "stem_type": "v0",  # P, the baseline's stem
    "stem_conv_temporal_kernel_size": 5,  # P, Table 1
    "stem_conv_temporal_stride": 2,  # P, Table 1
    "stem_pool_temporal_stride": 1,  # P, Table 1
    "stochastic_depth_drop_rate": 0.0,  # P, the baseline has none
    "se_ratio": 0.0,  # P, the baseline has none
    **{
        f"block_specs[{stage}]": {
            "temporal_strides": 1,
            "temporal_kernel_sizes": [kernel],
            # P says self-gating in every block; in the Garden True gives the stage's last block, and only that
            # matches the published parameter counts.
            "use_self_gating": True,
        }
        for stage, kernel in enumerate((1, 1, 3, 3))  # P, Table 1
    },
}
_TASK = {
    "name": None,
    "init_checkpoint_modules": "all",
    "freeze_backbone": False,
    "allow_image_summary": False,
    "differential_privacy_config": None,
    "train_input_partition_dims": None,
    "eval_input_partition_dims": None,
    "losses.one_hot": True,
    "losses.label_smoothing": 0.0,  # P, the baseline has none
    "losses.l2_weight_decay": 1e-4,  # G, package; P only says that 4e-5 is a reduction
    "metrics.use_per_class_recall": False,
}
_SCHEDULE = {
    "optimizer.type": "sgd",  # P
    "optimizer.sgd.name": "SGD",
    "optimizer.sgd.momentum": 0.9,  # P
    "optimizer.sgd.nesterov": True,  # G
    "optimizer.sgd.decay": 0.0,
    "optimizer.sgd.clipnorm": None,
    "optimizer.sgd.clipvalue": None,
    "optimizer.sgd.global_clipnorm": None,
    "learning_rate.type": "cosine",  # P
    "learning_rate.cosine.name": "CosineDecay",
    "learning_rate.cosine.initial_learning_rate": 0.8,  # P
    "learning_rate.cosine.decay_steps": PaperAmount("epochs", 200),  # ?, G's table of models says 200
    "learning_rate.cosine.alpha": 0.0,
    "learning_rate.cosine.offset": 0,
    "warmup.type": "linear",  # P
    "warmup.linear.name": "linear",
    "warmup.linear.warmup_learning_rate": 0.0,  # G
    "warmup.linear.warmup_steps": PaperAmount("epochs", 5),  # P
    "ema": None,  # P is silent; offered as the toggle "ema"
}
_TRAINER = {
    "train_steps": PaperAmount("epochs", 200),  # ?, G's table of models says 200
    "train_tf_while_loop": True,
    "train_tf_function": True,
    "eval_tf_function": True,
    "eval_tf_while_loop": False,
    "best_checkpoint_export_subdir": "",  # the reported number is the last checkpoint's, never the best's
    "best_checkpoint_eval_metric": "",
    "best_checkpoint_metric_comp": "higher",
    "loss_upper_bound": 1e6,
    "recovery_begin_steps": 0,
    "recovery_max_trials": 0,
}
_RUNTIME = {
    "mixed_precision_dtype": "bfloat16",  # G, on TPU
    "loss_scale": None,
    "enable_xla": False,
    "run_eagerly": False,
    "batchnorm_spatial_persistent": False,
}
_NETWORK = {f"network.filters[{stage}]": filters for stage, filters in enumerate((64, 128, 256, 512))} | {
    f"network.blocks[{stage}]": PaperAmount(f"blocks[{stage}]", 50) for stage in range(4)
}

_DATA_BOOKKEEPING = {
    "name": "",
    "input_path": "",
    "tfds_name": "",
    "tfds_split": "",
    "tfds_data_dir": "",
    "tfds_as_supervised": False,
    "tfds_skip_decoding_feature": "",
    "enable_tf_data_service": False,
    "tf_data_service_address": None,
    "tf_data_service_job_name": None,
    "enable_shared_tf_data_service_between_parallel_trainers": False,
    "apply_tf_data_service_before_batching": False,
    "trainer_id": None,
    "ram_budget": None,
    "prefetch_buffer_size": None,
    "autotune_algorithm": None,
}
_TRAINER_BOOKKEEPING = {
    # A loop is not interrupted: this many steps may be lost, or waited for, when a machine is taken away.
    "steps_per_loop": PaperAmount("epochs", 0.1),
    "summary_interval": PaperAmount("epochs", 0.1),
    "checkpoint_interval": PaperAmount("epochs", 5),
    "validation_interval": PaperAmount("epochs", 5),
    "validation_steps": -1,
    "max_to_keep": 2,
    "continuous_eval_timeout": 3600,
    "allow_tpu_summary": False,
    "validation_summary_subdir": "validation",
    "preemption_on_demand_checkpoint": False,
}
_RUNTIME_BOOKKEEPING = {
    "distribution_strategy": "one_device",
    "tpu": None,
    "num_gpus": 0,
    "worker_hosts": None,
    "task_index": -1,
    "all_reduce_alg": None,
    "num_packs": 1,
    "gpu_thread_mode": None,
    "dataset_num_private_threads": None,
    "per_gpu_thread_count": 0,
    "tpu_enable_xla_dynamic_padder": None,
    "num_cores_per_replica": 1,
    "default_shard_dim": -1,
    "use_tpu_mp_strategy": False,
}


def _under(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{field}": value for field, value in fields.items()}


# Blocks of the four stages by depth (He et al. 2016; Bello et al. 2021 for 270 and 300; G: RESNET_SPECS).
_PAPER_BLOCKS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    270: (4, 29, 53, 4),
    300: (4, 36, 54, 4),
}


def _blocks(table: dict[int, tuple[int, int, int, int]]) -> dict[str, dict[int, int]]:
    return {f"blocks[{stage}]": {depth: blocks[stage] for depth, blocks in table.items()} for stage in range(4)}


PAPER = Profile(
    name="paper",
    caption="The paper's recipe; choices that the paper leaves open stand in ablations/profiles.py.",
    settings=_under("task.train_data", _TRAIN_DATA)
    | _under("task.validation_data", _VALIDATION_DATA)
    | _under("task.model", _MODEL)
    | _under(BACKBONE, _BACKBONE)
    | _under("task", _TASK)
    | _under(OPTIMIZER, _SCHEDULE)
    | _under("trainer", _TRAINER)
    | _under("runtime", _RUNTIME)
    | _NETWORK,
    bookkeeping=_under("task.train_data", _DATA_BOOKKEEPING)
    | _under("task.validation_data", _DATA_BOOKKEEPING)
    | {
        "task.init_checkpoint": None,
        "task.validation_data.num_examples": 17_706,  # G
        "task.validation_data.global_batch_size": 0,  # filled in later: validation_batch for each replica
    }
    | _under("trainer", _TRAINER_BOOKKEEPING)
    | _under("runtime", _RUNTIME_BOOKKEEPING),
    units={
        "epochs": 1,
        "stage_epochs": 1,
        "steps": 1,
        "clips": 1,
        "learning_rate": 1,
        "trust": 1,
        "width": 1,
        "hidden_layers": 1,
        "least_area": 1,
        "distortion": 1,
        "pixels": 1,
        "evaluation_pixels": {224: 256, 256: 288, 288: 320},  # P; 320 is ?
        "policy_layers": 1,
        "policy_magnitude": 1,
        "linear_frames": {64: 32},
        "frames": {32: 16, 48: 24, 64: 32, "32x2": 32, "48x2": 48},  # Table 1: the network sees half of the clip
        "depth": {depth: depth for depth in _PAPER_BLOCKS},
        **_blocks(_PAPER_BLOCKS),
    },
    axes=AXES,
    clips=10,  # P
    crops=3,  # P
    evaluation_batch=1,  # 30 views
    validation_batch=2,
    # With tens of millions of videos an epoch lasts days; these limit the steps that are lost with a machine.
    longest={
        "trainer.steps_per_loop": 100,
        "trainer.summary_interval": 100,
        "trainer.checkpoint_interval": 2_000,
        "trainer.validation_interval": 10_000,
    },
    replicas=128,  # ?, P names 128 TPUv3 cores for pre-training: 8 clips to a group of batch normalization
    embedded=False,
)

_QUICK_BLOCKS = {
    50: (1, 1, 1, 1),
    101: (1, 1, 2, 1),
    152: (1, 1, 3, 1),
    200: (1, 2, 3, 1),
    270: (1, 2, 4, 1),
    300: (1, 3, 4, 1),
}
_QUICK_BATCH = 16

QUICK = dataclasses.replace(
    PAPER,
    name="quick",
    caption=(
        "Quick profile: networks of 14 to 23 layers, made of the same blocks, stand in for the paper's and train for "
        "seconds on generated clips; RandAugment applies one operation at half magnitude. It shows that the study "
        "works; it says nothing about the paper's numbers."
    ),
    settings=dict(PAPER.settings)
    | {
        "task.train_data.global_batch_size": _QUICK_BATCH,
        # The linear scaling rule, from 0.8 at a batch of 1024.
        f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate": 0.8 * _QUICK_BATCH / 1024,
        "task.train_data.shuffle_buffer_size": 1024,  # the whole set
        "task.train_data.dtype": "float32",
        "task.validation_data.dtype": "float32",
        "runtime.mixed_precision_dtype": "float32",
    }
    | {f"network.filters[{stage}]": filters for stage, filters in enumerate((16, 32, 64, 64))},
    bookkeeping=dict(PAPER.bookkeeping)
    | {
        "trainer.steps_per_loop": PaperAmount("epochs", 10),
        "trainer.summary_interval": PaperAmount("epochs", 10),
        "trainer.checkpoint_interval": PaperAmount("epochs", 50),
        "trainer.validation_interval": PaperAmount("epochs", 100),
    },
    units={
        "epochs": 1 / 25,  # the baseline's 200 become 8, 350 become 14
        "stage_epochs": {4: 14, 0.1: 0.2, 800: 24, 100: 16, 5: 1},
        "steps": {10_000: 128, 250: 4},
        "clips": {1024: _QUICK_BATCH, 2048: 2 * _QUICK_BATCH},
        # Pre-training and fine-tuning this short need the learning rate of a training from scratch.
        "learning_rate": {1.6: 0.0125, 0.05: 0.0125, 0.64: 0.015, 64.0: 8.0},
        "trust": {0.001: 0.3},  # makes up for the much smaller learning rate
        "width": {2048: 128},
        "hidden_layers": {3: 1},
        # Within seconds of training, clips cut smaller or distorted more are not told apart.
        "least_area": {0.3: 0.6},
        "distortion": {1.0: 0.25},
        "pixels": 1 / 8,
        "evaluation_pixels": {224: 32, 256: 36, 288: 40},
        # A training of seconds never recovers from the paper's strength: one layer at half of its magnitude.
        "policy_layers": 1 / 2,
        "policy_magnitude": 1 / 2,
        "linear_frames": {64: 8},  # as many as in pre-training; more would take most of the time
        "frames": {32: 8, 48: 12, 64: 16, "32x2": 16, "48x2": 20},  # 24 would need 48 frames, more than a video has
        # The stand-ins' own numbers of layers, so that they are never taken for the paper's.
        "depth": {depth: 3 * sum(blocks) + 2 for depth, blocks in _QUICK_BLOCKS.items()},
        **_blocks(_QUICK_BLOCKS),
    },
    stages={
        "pretrain": "Pre-training and fine-tuning have the rate of a training from scratch.",
        "cvrl": (
            "Of CVRL, clips are cut no smaller than 0.6 of a frame and distorted at a quarter of its strength, the "
            "projection has one hidden layer of 128, and LARS a trust coefficient of 0.3."
        ),
        "linear": "Linear evaluation sees clips as long as the pre-training's, not twice as long.",
    },
    evaluation_batch=16,
    validation_batch=48,
    replicas=1,
    embedded=True,
    measured_rate=4.5e10,
)

PROFILES = {profile.name: profile for profile in (QUICK, PAPER)}
