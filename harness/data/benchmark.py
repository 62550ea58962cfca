"""Measures how fast clips are read from a generated shard: by our reader, by the Garden's, and by decoding alone.

The frames are as large as those of real data sets, 340 x 256 to 602 x 256 pixels, and so are their JPEG files: 2.8 bits
a pixel, where three real videos had 2.2, 2.3 and 3.8 at this quality.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg
from official.vision.dataloaders import video_input
from official.vision.ops import preprocess_ops_3d
from official.vision.tasks import video_classification

from harness.config import embedded_spec
from harness.data import embedded, reader

WIDTHS = (340, 427, 455, 602)
_VIDEOS = 2 * len(WIDTHS)
_EPOCH = 16
_READY = 3
_TRAINING = {
    "is_training": True,
    "feature_shape": (16, 224, 224, 3),
    "global_batch_size": 8,
}
_EVALUATION = {
    "is_training": False,
    "drop_remainder": False,
    "feature_shape": (16, 256, 256, 3),
    "num_test_clips": 10,
    "num_test_crops": 3,
    "global_batch_size": 1,
}
_RANDAUGMENT = {"aug_type": {"type": "randaug", "randaug": {"num_layers": 2, "magnitude": 10}}}
# The settings of each case, and how many clips (in evaluation, videos) a round reads: every video equally often.
CASES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "training": (_TRAINING, 12 * _VIDEOS),
    "training with RandAugment": ({**_TRAINING, **_RANDAUGMENT}, 12 * _VIDEOS),
    "30-view evaluation": (_EVALUATION, _VIDEOS),
}


def write_shard(path: Path) -> reader.Source:
    """Draws the videos, 250 frames each, and writes them into one file."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(_VIDEOS):
            spec = embedded_spec.EmbeddedSpec(
                name=f"speed-{number}",
                train_videos=1,
                validation_videos=1,
                seed=number,
                frames=250,
                height=256,
                width=WIDTHS[number % len(WIDTHS)],
                sprite=(60, 100),
                noise=0.016,
            )
            for video in embedded.videos(spec, "validation"):
                writer.write(embedded.example(video))
    # The file is listed several times, so that starting an epoch weighs no more than it does in a real data set.
    return reader.Source((str(path),) * _EPOCH, (_VIDEOS,) * _EPOCH, len(embedded_spec.CLASSES))


def measure(source: reader.Source, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields a result for each case: "case", the speeds "ours", "garden" and "decode_only", and ratios of them.

    Speeds are in clips (in evaluation, videos) a second, medians over the rounds. The ratios "vs_garden" and
    "vs_decode_only" are medians of the ratios of each round. Both readers run with their defaults, where tf.data
    chooses the number of threads; decoding alone makes one parallel call for each core. In every round each takes its
    turn with a fresh pass over the same number of clips; a first round warms up and does not count.
    """
    for case, (settings, count) in CASES.items():
        params = _params(source, settings)
        passes = {"ours": _ours(params, source), "garden": _gardens(params), "decode_only": _decoding(params)}
        speeds: dict[str, list[float]] = {name: [] for name in passes}
        for turn in range(rounds + 1):
            for name, dataset in passes.items():
                speed = _speed(dataset, count, int(params.global_batch_size) if name != "decode_only" else 1)
                if turn:
                    speeds[name].append(speed)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        yield {
            "case": case,
            **medians,
            "vs_garden": _ratio(speeds["ours"], speeds["garden"]),
            "vs_decode_only": _ratio(speeds["ours"], speeds["decode_only"]),
        }


def _ratio(ours: list[float], others: list[float]) -> float:
    return statistics.median(our / other for our, other in zip(ours, others, strict=True))


def _params(source: reader.Source, settings: Mapping[str, Any]) -> exp_cfg.DataConfig:
    return exp_cfg.DataConfig(
        input_path=",".join(source.paths),
        num_examples=source.videos,
        num_classes=source.classes,
        temporal_stride=2,
        min_image_size=256,
        shuffle_buffer_size=16,
        cycle_length=4,
        deterministic=True,
        seed=0,
        **settings,
    )


def _speed(dataset: tf.data.Dataset, count: int, batch: int) -> float:
    """Returns the clips a second of a fresh pass over `count` clips, after those that a prefetch may have ready."""
    batches = iter(dataset.take(count // batch + _READY))
    for _ in range(_READY):
        next(batches)
    began = time.perf_counter()
    for _ in range(count // batch):
        next(batches)
    return count / (time.perf_counter() - began)


def _ours(params: exp_cfg.DataConfig, source: reader.Source) -> tf.data.Dataset:
    return (reader.training if params.is_training else reader.evaluation)(params, source)


def _gardens(params: exp_cfg.DataConfig) -> tf.data.Dataset:
    task = video_classification.VideoClassificationTask(exp_cfg.VideoClassificationTask(train_data=params))
    return task.build_inputs(params)


def _decoding(params: exp_cfg.DataConfig) -> tf.data.Dataset:
    """Reads the videos and decodes the frames of the case's clips, and nothing else."""
    decode, pick = video_input.Decoder().decode, _picked(params)

    def decoded(record: tf.Tensor) -> tf.Tensor:
        return preprocess_ops_3d.decode_image(pick(decode(record)[video_input.IMAGE_KEY]), 3)

    dataset = tf.data.TFRecordDataset(params.input_path.split(",")).repeat()
    return dataset.map(decoded, num_parallel_calls=len(os.sched_getaffinity(0))).prefetch(1)


def _picked(params: exp_cfg.DataConfig) -> Callable[[tf.Tensor], tf.Tensor]:
    frames, stride = params.feature_shape[0], params.temporal_stride
    if params.is_training:
        return lambda encoded: preprocess_ops_3d.sample_sequence(encoded, frames, True, stride)
    return lambda encoded: preprocess_ops_3d.sample_linspace_sequence(encoded, params.num_test_clips, frames, stride)
