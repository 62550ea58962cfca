"""Reads clips from `SequenceExample` shards into batches of uint8 that equal the Garden's, with all draws seeded.

In training, the order of an epoch is a function of (seed, epoch), and a clip's augmentation one of (seed, its position
in the order), so a resumed run continues where it stopped. In evaluation, every video is read once, in the order of the
shards; the last batch is padded to a static shape and masked.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from official.vision.configs import video_classification as exp_cfg
from official.vision.dataloaders import video_input
from official.vision.ops import augment

from harness.data import cvrl_clips, decoding, on_device, seeded_ops
from harness.data.manifest import Split

MEDIA_ID = "clip/media_id"
# Longest media id, bytes. Ids travel as numbers, since strings cannot be sent to an accelerator.
ID_BYTES = 64
# With fewer shards than this for each pipeline, shares would be too uneven: the pipelines share out records instead.
_SHARDS_PER_PIPELINE = 32
# Most clips that tf.data makes at once if it chooses without tuning: it takes one thread per processor, up to this.
_UNTUNED = 16

Element = tuple[dict[str, tf.Tensor], Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """The shards of one split.

    Attributes:
      paths: the shards' paths, in order.
      counts: number of videos in each shard.
      classes: number of classes; a label outside is an error.
      frame: height and width of all frames, in pixels; zeros if they differ.
    """

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    classes: int
    frame: tuple[int, int] = (0, 0)

    @property
    def videos(self) -> int:
        """Number of videos."""
        return sum(self.counts)

    @classmethod
    def of(cls, folder: str, split: Split, classes: int, frame: tuple[int, int] = (0, 0)) -> Source:
        """Returns the source of a split of the prepared data set in `folder`."""
        paths = tuple(f"{folder}/{shard.file}" for shard in split.shards)
        return cls(paths, tuple(shard.examples for shard in split.shards), classes, frame)


@dataclasses.dataclass(frozen=True)
class _Pipeline:
    """One input pipeline (host).

    Attributes:
      index, count: its number, and how many pipelines there are.
      replicas: number of replicas that it feeds; they take its batches in turn.
      batch: clips of one replica in one step.
      by_shard: whether pipelines share out the shards; otherwise each reads all, and they share out the records.
    """

    index: int
    count: int
    replicas: int
    batch: int
    by_shard: bool

    @classmethod
    def of(
        cls, params: exp_cfg.DataConfig, source: Source, context: tf.distribute.InputContext | None = None
    ) -> _Pipeline:
        batch = int(params.global_batch_size)
        if context is None:
            return cls(0, 1, 1, batch, by_shard=len(source.paths) >= _SHARDS_PER_PIPELINE)
        count = context.num_input_pipelines
        return cls(
            context.input_pipeline_id,
            count,
            context.num_replicas_in_sync // count,
            context.get_per_replica_batch_size(batch),
            by_shard=len(source.paths) >= _SHARDS_PER_PIPELINE * count,
        )

    @property
    def share(self) -> int:
        """Clips that it makes for one step."""
        return self.replicas * self.batch

    def own(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """Returns its share of each step's records.

        Shares are of consecutive records, so that a replica's clips depend on no other pipeline.
        """
        if self.by_shard or self.count == 1:
            return records
        return records.batch(self.share).shard(self.count, self.index).unbatch()

    def place(self, number: Any, each: int) -> Any:
        """Returns the position of its `number`-th clip or batch among all pipelines', which take `each` in turn."""
        return (number // each * self.count + self.index) * each + number % each


def training(
    params: exp_cfg.DataConfig,
    source: Source,
    start_step: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Makes endless training batches.

    Args:
      params: the Garden's configuration of the training data; its seed decides order and augmentation.
      source: the shards.
      start_step: the optimizer step at which to begin.
      context: which part of the batch this pipeline makes.

    Returns:
      Dataset of ({"image": [batch, frames, height, width, 3]}, one-hot labels [batch, classes]). Images are uint8, for
      :func:`harness.data.on_device.for_network`; with mixup or CutMix they are scaled already, as both mix numbers. For
      contrastive pre-training the features are batches of :func:`harness.data.cvrl_clips.training_features`.
    """
    pipeline = _Pipeline.of(params, source, context)
    dataset = clips(params, source, start_step, context).batch(pipeline.batch, drop_remainder=True)
    if params.mixup_and_cutmix is not None:
        dataset = dataset.enumerate(start_step * pipeline.replicas).map(
            _mixed(params, source.classes, pipeline), num_parallel_calls=tf.data.AUTOTUNE
        )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(_tuning())


def _tuning() -> tf.data.Options:
    """Returns options that let tf.data tune itself only if there is something to tune.

    Where all processors are used from the start, tuning only costs time: a pipeline that ends may miss that its tuning
    should end too, and then waits for the next round of tuning, for up to as long as it ran before, or a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = (os.cpu_count() or 1) > _UNTUNED
    return options


def clips(
    params: exp_cfg.DataConfig, source: Source, start_step: int, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """Makes the clips of :func:`training`, one by one and before mixup and CutMix."""
    pipeline = _Pipeline.of(params, source, context)
    seed = int(params.seed)

    def augmented(number: tf.Tensor, record: tf.Tensor) -> Element:
        # The position counts over all pipelines. If they share out records, their number does not change a clip's
        # draws; if they share out shards, no two of them draw alike.
        position = pipeline.place(number, pipeline.share)
        with seeded_ops.fixed_by(tf.stack([tf.constant(seed, tf.int64), position])):
            features, target, _, _ = _parser(params, source)(record)
        return features, target

    records = _ordered(params, source, pipeline, start_step, _records(source)).enumerate(start_step * pipeline.share)
    return records.map(augmented, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def places(
    params: exp_cfg.DataConfig, source: Source, start: int, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """Lists the (shard, record) numbers, from zero, of what :func:`clips` or :func:`videos` reads; reads no file."""
    counts = tf.constant(source.counts, tf.int64)

    def numbered(shard: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.range(counts[shard]).map(lambda record: tf.stack([tf.cast(shard, tf.int64), record]))

    if params.is_training:
        return _ordered(params, source, _Pipeline.of(params, source, context), start, numbered)
    return tf.data.Dataset.range(len(source.paths)).flat_map(numbered).skip(start)


def _records(source: Source) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Returns a function that reads the serialized videos of a shard, given its number."""
    paths = tf.constant(source.paths)
    return lambda shard: tf.data.TFRecordDataset(tf.gather(paths, shard))


def _ordered(
    params: exp_cfg.DataConfig,
    source: Source,
    pipeline: _Pipeline,
    start_step: int,
    opened: Callable[[tf.Tensor], tf.data.Dataset],
) -> tf.data.Dataset:
    """Reads from `start_step` on, epoch after epoch; `opened` returns the records of a shard, given its number."""
    seed = int(params.seed)

    def shards_of(epoch: tf.Tensor) -> tf.Tensor:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(source.paths)), tf.stack([seed, epoch]))
        return order[pipeline.index :: pipeline.count] if pipeline.by_shard else order

    def records_of(epoch: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices(shards_of(epoch)).interleave(
            opened,
            cycle_length=params.cycle_length,
            block_length=params.block_length,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return _shuffled(records, params.shuffle_buffer_size, tf.stack([seed, epoch]))

    def size_of(epoch: int) -> int:
        if pipeline.by_shard:
            return sum(source.counts[shard] for shard in shards_of(tf.constant(epoch, tf.int64)).numpy())
        return source.videos

    # If they share out records, each pipeline reads the records of all and keeps its share.
    start = start_step * pipeline.share * (1 if pipeline.by_shard else pipeline.count)
    epoch = 0
    while start >= size_of(epoch):
        start -= size_of(epoch)
        epoch += 1
    epochs = tf.data.Dataset.range(epoch, tf.int64.max)
    return pipeline.own(epochs.flat_map(records_of).skip(start))


def _shuffled(records: tf.data.Dataset, window: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffles `window` records at a time; `Dataset.shuffle` takes no seed that changes with the epoch."""
    spec = records.element_spec

    def handle(record: tf.Tensor) -> tf.Tensor:
        # Handles are shuffled, because a video of some megabytes would be copied three times.
        empty = tf.raw_ops.EmptyTensorList(element_shape=spec.shape, max_num_elements=1, element_dtype=spec.dtype)
        return tf.raw_ops.TensorListPushBack(input_handle=empty, tensor=record)

    def shuffled(number: tf.Tensor, handles: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(handles, tf.random.experimental.stateless_fold_in(seed, number))

    def record_of(handle: tf.Tensor) -> tf.Tensor:
        item = tf.raw_ops.TensorListGetItem(
            input_handle=handle, index=0, element_shape=spec.shape, element_dtype=spec.dtype
        )
        return tf.ensure_shape(item, spec.shape)

    # The next window is read while this one is used; otherwise everything would wait at the start of each window.
    windows = records.map(handle).batch(window).enumerate().map(shuffled).prefetch(1)
    return windows.unbatch().map(record_of)


def evaluation(
    params: exp_cfg.DataConfig, source: Source, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """Makes evaluation batches of a static shape that hold each of the first `params.num_examples` videos once.

    Args:
      params: the Garden's configuration of the validation data.
      source: the shards.
      context: which part of the batch this pipeline makes.

    Returns:
      Dataset of (features, labels): features as :func:`harness.data.decoding.evaluation_frames` makes them, for
      :func:`harness.data.on_device.for_network`; labels holds "label" [batch], "media_id" [batch, 64] (bytes of the id
      as int32, zero padded) and "valid" [batch] (false for padding).
    """
    pipeline = _Pipeline.of(params, source, context)
    dataset = videos(params, source, context=context)
    rounds = -(-_evaluated(params, source) // (pipeline.share * pipeline.count))
    numbers = range(rounds * pipeline.share)
    missing = sum(pipeline.place(number, pipeline.share) >= _evaluated(params, source) for number in numbers)
    padding = tf.data.Dataset.from_tensors(tf.nest.map_structure(_zeros, dataset.element_spec)).repeat(missing)
    return _batched(dataset.concatenate(padding), pipeline.batch).prefetch(2).with_options(_tuning())


def _batched(dataset: tf.data.Dataset, size: int) -> tf.data.Dataset:
    # A batch of one needs no copy; copying the frames of 30 views takes as long as decoding some of them.
    if size == 1:
        return dataset.map(lambda *element: tf.nest.map_structure(lambda value: tf.expand_dims(value, 0), element))
    return dataset.batch(size, drop_remainder=True)


def videos(
    params: exp_cfg.DataConfig, source: Source, start: int = 0, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """Reads the videos of :func:`evaluation` from the `start`-th on, one by one and without the padding."""
    pipeline = dataclasses.replace(_Pipeline.of(params, source, context), by_shard=False)
    count = _evaluated(params, source)
    dataset = tf.data.Dataset.range(len(source.paths)).flat_map(_records(source))
    dataset = dataset.take(count).apply(tf.data.experimental.assert_cardinality(count))
    return pipeline.own(dataset.skip(start)).map(
        _viewer(params, source), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _evaluated(params: exp_cfg.DataConfig, source: Source) -> int:
    return min(int(params.num_examples), source.videos)


def _zeros(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros(spec.shape, spec.dtype)


def _parser(params: exp_cfg.DataConfig, source: Source) -> Callable[[tf.Tensor], tuple[Any, ...]]:
    """Returns a function from a serialized video to features, the Garden's target, the label's number, and the id."""
    decoder = video_input.Decoder(image_key=params.image_field_key, label_key=params.label_field_key)
    decoder.add_context(MEDIA_ID, tf.io.FixedLenFeature((), tf.string))
    longest = 0 if params.is_training or params.num_test_crops == 1 else decoding.longest(params, source.frame)

    def parsed(record: tf.Tensor) -> tuple[Any, ...]:
        decoded = decoder.decode(record)
        labels, media_id = decoded[params.label_field_key], decoded[MEDIA_ID]
        with tf.control_dependencies(_checks(labels[0], media_id, source.classes)):
            encoded = tf.identity(decoded[params.image_field_key])
        if params.is_training:
            features = _TRAINING_FEATURES[getattr(params, "is_ssl", False)](encoded, params)
        else:
            features = decoding.evaluation_frames(encoded, params, longest)
        target = video_input.process_label(labels, params.one_hot, params.num_classes, params.label_dtype)
        return features, target, tf.cast(labels[0], tf.int32), media_id

    return parsed


# Makes a training video's features; the key is whether the Garden's configuration asks for contrastive pre-training.
_TRAINING_FEATURES: Mapping[bool, Callable[[tf.Tensor, Any], dict[str, tf.Tensor]]] = {
    False: lambda encoded, params: {"image": decoding.training_clip(encoded, params)},
    True: cvrl_clips.training_features,
}


def _checks(label: tf.Tensor, media_id: tf.Tensor, classes: int) -> list[tf.Operation]:
    inside = tf.logical_and(label >= 0, label < classes)
    short = tf.strings.length(media_id) <= ID_BYTES
    return [
        tf.debugging.Assert(inside, ["label", label, "of video", media_id, "expected 0 to", classes - 1]),
        tf.debugging.Assert(short, ["media id", media_id, "is longer than", ID_BYTES, "bytes"]),
    ]


def _viewer(params: exp_cfg.DataConfig, source: Source) -> Callable[[tf.Tensor], Element]:
    """Returns a function from a serialized video to the frames of its views and what identifies it."""
    parse = _parser(params, source)

    def viewed(record: tf.Tensor) -> Element:
        features, _, label, media_id = parse(record)
        numbers = tf.cast(tf.io.decode_raw(media_id, tf.uint8, fixed_length=ID_BYTES), tf.int32)
        return features, {"label": label, "media_id": numbers, "valid": tf.constant(True)}

    return viewed


def _mixed(params: exp_cfg.DataConfig, classes: int, pipeline: _Pipeline) -> Callable[[tf.Tensor, Element], Element]:
    """Returns a function that mixes a batch by the Garden's mixup and CutMix, as `VideoClassificationTask` does."""
    mix = params.mixup_and_cutmix
    seed = int(params.seed)

    def mixed(number: tf.Tensor, batch: Element) -> Element:
        features, labels = batch
        # The seeds are negative, because the clips' draws use those from zero up.
        position = pipeline.place(number, pipeline.replicas)
        with seeded_ops.fixed_by(tf.stack([tf.constant(seed, tf.int64), -1 - position])):
            augmenter = augment.MixupAndCutmix(
                mixup_alpha=mix.mixup_alpha,
                cutmix_alpha=mix.cutmix_alpha,
                prob=mix.prob,
                label_smoothing=mix.label_smoothing,
                num_classes=classes,
            )
            image, target = augmenter(on_device.scaled(features["image"], params), labels)
        return {"image": image}, target

    return mixed


def media_ids(numbers: Any) -> Iterator[str]:
    """Yields the ids that :func:`evaluation` sent as numbers: [videos, 64] -> strings."""
    for row in numbers:
        yield bytes(int(number) for number in row if number).decode()
