"""Trains and evaluates one run with the Garden's task and Orbit's trainer; knows no toggles, studies or result files.

What it reports while it works are plain mappings, handed to a function: {"event": "train", "step": ..., ...}.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orbit
import tensorflow as tf
import tf_keras
from official.common import distribute_utils
from official.core import base_trainer, config_definitions, train_lib, train_utils
from official.modeling import optimization

from harness.config.devices import MULTI_WORKER, Devices, DevicesError
from harness.config.experiment import Protocol, Run, SettingsError, for_protocol
from harness.data import reader
from harness.data.manifest import Manifest
from harness.store import attempts, checkpoints
from harness.store.attempts import Interrupted, RunError
from harness.system import paths
from harness.training import determinism, garden_config, tasks
from harness.training.task import Predictions, VideoTask

Report = Callable[[Mapping[str, Any]], None]
Stop = Callable[[], str | None]
# Raises `LostError` where the run is another worker's meanwhile. True: something is about to be written, look now;
# False: what was heard last will do.
Hold = Callable[[bool], None]
# In what TensorFlow says where a worker is gone: of its collectives, and of the service that knows who is there.
_DESERTIONS = ("Collective ops", "oordination service", "CoordinationService", "/job:worker/")


def never() -> None:
    """Nobody asks to stop."""


def held(_: bool) -> None:
    """Nobody else can be at the run."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is carried out; nothing here can change its result.

    Attributes:
      data: folder of the prepared data set.
      checkpoints: folder of the attempt's checkpoints.
      devices: on which devices.
      parent: path of the weights that the run starts from, None where it starts from its seed.
      scratch: folder for what a worker that is not the chief has to write and nobody reads.
      origins: folders of the checkpoints of the attempts before it, the last first, which it goes on from.
    """

    data: str
    checkpoints: str
    devices: Devices = Devices()
    parent: str | None = None
    scratch: str = ""
    origins: tuple[str, ...] = ()

    @property
    def written(self) -> str:
        """Folder for the checkpoints that this process writes: workers save together, and the chief's are kept."""
        return self.checkpoints if self.devices.chief else self.scratch

    def bookkeeping(self) -> dict[str, Any]:
        """The Garden's fields that say the same."""
        most = {"tpu": 0, "one_device": 1}.get(self.devices.strategy)
        return {
            "runtime.distribution_strategy": self.devices.strategy,
            "runtime.tpu": self.devices.tpu,
            "runtime.num_gpus": len(tf.config.list_physical_devices("GPU")[:most]),
            "runtime.worker_hosts": ",".join(self.devices.worker_hosts) or None,
            "runtime.task_index": self.devices.task_index if self.devices.worker_hosts else -1,
            "task.init_checkpoint": self.parent,
            "task.train_data.input_path": f"{self.data}/train-*",
            "task.validation_data.input_path": f"{self.data}/validation-*",
        }


def last_checkpoint(folder: str) -> tuple[str, int] | None:
    """Path and step of the last whole training checkpoint in a folder, None where there is none."""
    place = paths.of(folder)
    step = checkpoints.listed(place)
    if step is None:
        # TensorFlow's list of them is lost, or a kill came before its first: any of them may be torn.
        whole = (one for one in reversed(checkpoints.steps(place)) if _is_whole(str(checkpoints.training(place, one))))
        step = next(whole, None)
    return None if step is None else (str(checkpoints.training(place, step)), step)


def furthest(place: Place) -> tuple[str, int] | None:
    """Path and step of the checkpoint that training goes on from, this attempt's or an earlier one's; None for none."""
    found = [one for folder in (place.checkpoints, *place.origins) if (one := last_checkpoint(folder))]
    return max(found, key=lambda one: one[1], default=None)


def weights(folder: str, step: int) -> str:
    """Path of what is kept of a training that reached its last step: the network's weights alone."""
    return str(checkpoints.weights(paths.of(folder), step))


def trained(run: Run, place: Place) -> str | None:
    """Path of the weights that a training of the run to its last step left, this attempt's or an earlier one's.

    Raises:
      RunError: they are damaged, and there is no checkpoint to write them from again.
    """
    step = run.settings["trainer.train_steps"]
    damaged: RunError | None = None
    for folder in (place.checkpoints, *place.origins):
        path = weights(folder, step)
        if paths.of(path + ".index").is_file():
            try:
                return _readable(path)
            except RunError as error:
                damaged = damaged or error
    if damaged is not None and ((last := furthest(place)) is None or last[1] != step):
        raise damaged
    return None  # of a kill while they were written, training goes on from the checkpoint, by no step


def _is_whole(path: str) -> bool:
    with contextlib.suppress(RunError):
        return bool(_readable(path))
    return False


def _readable(path: str) -> str:
    """The path of a checkpoint, every byte of which was held against its checksum.

    Raises:
      RunError: it is damaged.
    """
    try:
        found = tf.train.load_checkpoint(path)
        for name in found.get_variable_to_shape_map():
            found.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise RunError(
            f"{path}: damaged checkpoint, its checksums or its index do not hold; remove its files to go on from the "
            "one before, where there is one, or to train from the first step"
        ) from error
    return path


@functools.cache
def strategy_for(devices: Devices) -> tf.distribute.Strategy:
    """The distribution strategy, by the Garden's distribution utility; once a process, as TPUs and workers need it.

    Raises:
      DevicesError: this machine cannot give it.
    """
    runtime = Place("", "", devices).bookkeeping()
    try:
        if devices.strategy == MULTI_WORKER:
            os.environ.pop("TF_CONFIG", None)  # the Garden would prefer it; the flags were read from it already
            distribute_utils.configure_cluster(runtime["runtime.worker_hosts"], devices.task_index)
        strategy = distribute_utils.get_distribution_strategy(
            distribution_strategy=devices.strategy,
            num_gpus=runtime["runtime.num_gpus"],
            tpu_address=devices.tpu,
        )
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        asked = f"{devices.strategy} {devices.tpu}" if devices.tpu else devices.strategy
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise DevicesError(f"strategy {asked}: this machine does not give it ({reason})") from error
    return strategy


def _refuse_other_replicas(strategy: tf.distribute.Strategy, run: Run, place: Place) -> None:
    """Statistics of batch normalization are each replica's own, so another number of them is another run."""
    replicas = strategy.num_replicas_in_sync
    if replicas != run.replicas:
        raise DevicesError(
            f"strategy {place.devices.strategy} gives {replicas} replicas here, the run was planned for "
            f"{run.replicas}: say --replicas {replicas}"
        )


def train(run: Run, manifest: Manifest, place: Place, report: Report, stop: Stop = never, hold: Hold = held) -> str:
    """Trains a run to its last step, from its furthest checkpoint where there is one, and leaves its weights.

    Args:
      run: the run.
      manifest: of the data set.
      place: where.
      report: gets the events.
      stop: asked after each inner loop and each batch of a validation; a text, the reason, to stop.
      hold: asked there too, and before each checkpoint.

    Returns:
      The device that trained, in words.

    Raises:
      SettingsError: settings that the Garden or this machine cannot carry out.
      RunError: damaged data or checkpoints, or a loss that is no number any more.
      Interrupted: it was asked to stop; the checkpoint of the step it reached was saved.
      LostError: the run is another worker's meanwhile; nothing was written since it was.
    """
    strategy = strategy_for(place.devices)
    found = furthest(place)
    start = found[1] if found else 0
    if found:
        _readable(found[0])
    elif place.parent:
        _readable(place.parent)
    with determinism.of_run(run):
        _refuse_other_replicas(strategy, run, place)
        config = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
        stopper = _Stopper(stop, hold, place.devices)
        task = _task(config, run, manifest, place, start, stopper.during_validation)
        curve = _Curve(config.trainer.train_steps, task.measured, report)
        finite = _Finite(config.trainer.loss_upper_bound, start)
        _refuse_another_run(strategy, f"{run.id} from step {start}")
        runner = _Runner(
            strategy,
            task,
            "train_and_eval" if task.validates else "train",
            config,
            place.written,
            save_summary=False,
            train_actions=[finite, curve.trained, stopper.after_loop],
            eval_actions=[curve.validated],
            controller_cls=_Controller,
            origin=found,
            saves=_Saves(hold, place),
        )
        curve.step = finite.step = runner.trainer.global_step
        stopper.controller = runner.controller
        report({"event": "attempt", "step": start, **(attempts.origin(found[0]) if found else {})})
        with strategy.scope(), _faults_named(task, True, lambda: finite.last):
            # Made here: within the train step, which reads them, replicas on several devices could not make the
            # iterations, and a step that makes its optimizer's variables is traced a second time.
            runner.trainer.optimizer._create_all_weights(runner.trainer.model.trainable_variables)
            _train(runner.controller, config.trainer, task.validates)
        with strategy.scope(), _faults_named(task, True, lambda: finite.last):
            hold(True)
            _write_weights(runner.trainer, weights(place.written, config.trainer.train_steps))
            if place.devices.workers > 1:
                _anyone(False)  # the others wait here until the chief has written what all of them evaluate
        return _device(strategy, place)


def _train(controller: orbit.Controller, trainer: config_definitions.TrainerConfig, validates: bool) -> None:
    if validates:
        controller.train_and_evaluate(trainer.train_steps, trainer.validation_steps, trainer.validation_interval)
    else:
        controller.train(trainer.train_steps)


def shrink(run: Run, checkpoint: str, place: Place) -> str:
    """Writes, of a training checkpoint, what evaluation and fine-tuning need.

    Args:
      run: the run it belongs to.
      checkpoint: path of the checkpoint: "folder/ckpt-208".
      place: where; the weights are written into its folder of checkpoints.

    Returns:
      The path of the weights.

    Raises:
      RunError: the checkpoint is damaged.
      AssertionError: it holds another network.
    """
    strategy = strategy_for(place.devices)
    with determinism.of_run(run), strategy.scope():
        config = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
        task = tasks.of(run.settings)(config.task, None, reader.Source((), (), 1))
        trainer = _evaluator(config, task, evaluate=False)
        trainer.checkpoint.restore(_readable(checkpoint)).assert_existing_objects_matched().expect_partial()
        path = weights(place.checkpoints, config.trainer.train_steps)
        _write_weights(trainer, path)
    return path


def _write_weights(trainer: base_trainer.Trainer, path: str) -> None:
    """Writes the weights that are evaluated: averaged where the optimizer averages them; ends the trainer's use.

    They are assigned, not swapped as for a validation, which costs the last digits.
    """
    averaging = trainer.optimizer
    if isinstance(averaging, optimization.ExponentialMovingAverage):
        for variable in trainer.model.variables:
            with contextlib.suppress(KeyError):  # no average: only trainable variables are averaged
                variable.assign(averaging.get_slot(variable, "average"))
    tf.train.Checkpoint(model=trainer.model, **trainer.model.checkpoint_items).write(path)


def evaluate(
    run: Run,
    protocol: Protocol,
    manifest: Manifest,
    place: Place,
    report: Report,
    stop: Stop = never,
    hold: Hold = held,
) -> tuple[Predictions, str, float, str]:
    """Evaluates the weights that a run's training left, under a protocol.

    Returns:
      The predictions, the path of the weights, the seconds it took and the device in words.

    Raises:
      SettingsError: the run was not trained to its last step.
      RunError: damaged data or weights.
      Interrupted: it was asked to stop.
      LostError: the run is another worker's meanwhile.
    """
    strategy = strategy_for(place.devices)
    with determinism.of_run(run):
        settings, bookkeeping = for_protocol(run, protocol)
        # The weights are the averaged ones already.
        settings["trainer.optimizer_config.ema"] = None
        config = garden_config.build(settings, {**bookkeeping, **place.bookkeeping()})
        data = config.task.validation_data
        data.global_batch_size = run.evaluation_batch * strategy.num_replicas_in_sync
        path = trained(run, place)
        if path is None:
            raise SettingsError(f"{place.checkpoints}: no weights of step {config.trainer.train_steps} to evaluate")
        done = 0

        def evaluated(videos: int) -> None:
            nonlocal done
            done = videos
            report(_progress("evaluate", done, data.num_examples))
            hold(False)
            if reason := stop():
                raise Interrupted(reason)

        task = _task(config, run, manifest, place, None, evaluated)
        report(_progress("evaluate", 0, data.num_examples))
        with strategy.scope(), _faults_named(task, False, lambda: done):
            trainer = _evaluator(config, task)
            _restore(trainer.model, path)
            began = time.monotonic()
            trainer.evaluate(tf.constant(-1))
        if task.predictions is None:
            raise SettingsError(f"{run.data.name}: the validation split is empty")
        return task.predictions, path, time.monotonic() - began, _device(strategy, place)


def _restore(model: tf_keras.Model, path: str) -> None:
    """Reads weights into a network.

    Raises:
      RunError: they are another network's.
    """
    try:
        tf.train.Checkpoint(model=model).read(path).assert_existing_objects_matched().expect_partial()
    except (AssertionError, ValueError) as error:
        raise RunError(
            f"{path}: weights of another network than the run's ({' '.join(str(error).split())[:200]})"
        ) from error


def _evaluator(
    config: config_definitions.ExperimentConfig, task: VideoTask, evaluate: bool = True
) -> base_trainer.Trainer:
    """The Garden's trainer for evaluation alone."""
    return train_utils.create_trainer(config, task, train=False, evaluate=evaluate, trainer_cls=_Trainer)


def _task(
    config: config_definitions.ExperimentConfig,
    run: Run,
    manifest: Manifest,
    place: Place,
    start_step: int | None,
    evaluated: Callable[[int], None] | None = None,
) -> VideoTask:
    """The task; without training data where no step is named at which they begin."""
    classes, frame = len(manifest.classes), (manifest.height, manifest.width)
    train, validation = (
        reader.Source.of(place.data, manifest.splits[split], classes, frame) for split in ("train", "validation")
    )
    source = None if start_step is None else train
    return tasks.of(run.settings)(config.task, source, validation, start_step or 0, evaluated)


def _device(strategy: tf.distribute.Strategy, place: Place) -> str:
    kind = "TPU" if place.devices.tpu else "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return f"{strategy.num_replicas_in_sync} x {kind}, {os.cpu_count()} CPU cores, {place.devices.strategy}"


def _progress(event: str, done: int, total: int) -> dict[str, Any]:
    return {"event": event, "done": done, "total": total}


class _Stopper:
    """Saves a checkpoint and raises :class:`Interrupted` once training is asked to stop.

    A preempted TPU asks too: TensorFlow's PreemptionWatcher hears of it from the TPU's coordination service.
    """

    def __init__(self, stop: Stop, hold: Hold, devices: Devices) -> None:
        self.controller: Any = None
        self._stop, self._hold, self._several = stop, hold, devices.workers > 1
        self._watcher = tf.distribute.experimental.PreemptionWatcher() if devices.strategy == "tpu" else None

    def after_loop(self, _: Mapping[str, Any]) -> None:
        """After each inner loop of training; all workers stop where one is asked to, since saving takes them all."""
        self._hold(False)
        reason = self._reason()
        if self._several and not reason and _anyone(False):
            reason = "another worker was asked to stop"
        elif self._several and reason:
            _anyone(True)
        if reason:
            self.controller.save_checkpoint()
            raise Interrupted(reason)

    def during_validation(self, _: int) -> None:
        """After each batch of a validation; several workers finish it, to stay together."""
        self._hold(False)
        if not self._several and (reason := self._reason()):
            raise Interrupted(reason)

    def _reason(self) -> str | None:
        if self._watcher is not None and self._watcher.preemption_message:
            return "the TPU is being preempted"
        return self._stop()


def _anyone(asked: bool) -> bool:
    """Whether any worker says so; every worker has to ask at the same point."""
    strategy = tf.distribute.get_strategy()
    votes = strategy.run(lambda: tf.constant(float(asked)))
    return float(strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)) > 0


def _refuse_another_run(strategy: tf.distribute.Strategy, what: str) -> None:
    """Workers that would train different runs together, or one from different steps, find out before they do.

    Raises:
      DevicesError: they would.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    own = tf.constant([list(what.ljust(64).encode())], tf.int32)
    gathered = strategy.run(lambda: tf.distribute.get_replica_context().all_gather(own, axis=0))
    lines = strategy.experimental_local_results(gathered)[0].numpy()
    said = sorted({bytes(line.tolist()).decode().strip() for line in lines})
    if len(said) > 1:
        raise DevicesError(
            f"the workers would train different runs together ({'; '.join(said)}): start all of them with the same "
            "flags and one --results folder that all of them see"
        )


def is_desertion(error: BaseException | None) -> bool:
    """Whether an error means that another of the workers that train together is gone, and nothing else is wrong.

    TensorFlow has no class for it, and a fault of this worker's own data aborts its collectives too: kind and text
    together tell them apart.
    """
    kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
    while error is not None:
        if isinstance(error, kinds) and any(mark in str(error) for mark in _DESERTIONS):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Saves:
    """Asks for leave before a checkpoint is saved; after the first, those of earlier attempts are needed no more."""

    def __init__(self, hold: Hold, place: Place) -> None:
        self._hold = hold
        self._origins = list(place.origins) if place.devices.chief else []

    def before(self) -> None:
        """A checkpoint is about to be written."""
        self._hold(True)

    def after(self) -> None:
        """It was, and is whole."""
        while self._origins:
            checkpoints.drop_training(paths.of(self._origins.pop()))


class _Trainer(base_trainer.Trainer):
    """The Garden's, which reads what the pipeline makes as it is where the only device is the processor that made it.

    TensorFlow would carry every batch over by a second pipeline, whose tuning nobody can turn off; what that costs when
    it ends, see :mod:`harness.data.reader`, which turns off that of its own where it has nothing to tune.
    """

    def distribute_dataset(self, dataset_or_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """See :class:`official.core.base_trainer.Trainer`."""
        if callable(dataset_or_fn) and _is_one_processor(self.strategy):
            return dataset_or_fn(*args, **kwargs)
        return super().distribute_dataset(dataset_or_fn, *args, **kwargs)


def _is_one_processor(strategy: tf.distribute.Strategy) -> bool:
    # Replicas of all workers: a worker of several names its own devices alone, and its share of the batch is not all.
    device = tf.DeviceSpec.from_string(strategy.extended.worker_devices[0])
    return strategy.num_replicas_in_sync == 1 and device.device_type == "CPU"


class _Runner(train_lib.OrbitExperimentRunner):
    """The Garden's, with every worker going on from the chief's checkpoint; the Garden's others would begin anew.

    Args:
      origin: path and step of the checkpoint to go on from.
      saves: is told of checkpoints.
    """

    def __init__(self, *args: Any, origin: tuple[str, int] | None, saves: _Saves, **kwargs: Any) -> None:
        self._origin, self._saves = origin, saves
        super().__init__(*args, **kwargs)

    def _build_trainer(self, task: VideoTask, train: bool, evaluate: bool) -> base_trainer.Trainer:
        with self.strategy.scope():
            return train_utils.create_trainer(
                self.params, task, train, evaluate, self._build_best_checkpoint_exporter(), trainer_cls=_Trainer
            )

    def _maybe_build_checkpoint_manager(self) -> tf.train.CheckpointManager:
        trainer = self.params.trainer
        return _Manager(
            self.trainer.checkpoint,
            directory=self.model_dir,
            max_to_keep=trainer.max_to_keep,
            step_counter=self.trainer.global_step,
            checkpoint_interval=trainer.checkpoint_interval,
            init_fn=self.trainer.initialize,
            last_checkpoint_step=self._origin[1] if self._origin else None,
            origin=self._origin,
            saves=self._saves,
        )


class _Manager(tf.train.CheckpointManager):
    """TensorFlow's, told which checkpoint to go on from, since that is in another folder."""

    def __init__(self, *args: Any, origin: tuple[str, int] | None, saves: _Saves, **kwargs: Any) -> None:
        self._origin, self._saves = origin, saves
        self._saved = origin[1] if origin else None
        super().__init__(*args, **kwargs)

    def restore_or_initialize(self) -> str | None:
        """See :class:`tf.train.CheckpointManager`."""
        if self._origin is None:
            return super().restore_or_initialize()
        self.checkpoint.restore(self._origin[0])
        return self._origin[0]

    def save(self, checkpoint_number: Any = None, check_interval: bool = True, options: Any = None) -> str | None:
        """See :class:`tf.train.CheckpointManager`; called after each inner loop, it mostly writes nothing."""
        step = int(checkpoint_number)
        due = self._saved is None or step >= self._saved + (self.checkpoint_interval if check_interval else 1)
        if not due:
            return None
        self._saves.before()
        path = super().save(checkpoint_number, check_interval, options)
        self._saved = step
        self._saves.after()
        return path


class _Controller(orbit.Controller):
    """Orbit's, which saves before a validation, where a stop could not, and names faults of its data."""

    def evaluate(self, steps: int = -1) -> Any:
        """See :class:`orbit.Controller`."""
        # While it validates, averaged weights stand in the place of the weights that are trained.
        self.save_checkpoint()
        with _faults_named(self.evaluator.task, False, lambda: 0):
            return super().evaluate(steps)


class _Finite:
    """Ends a training whose loss is no number any more, or beyond the Garden's bound, before it is saved."""

    def __init__(self, bound: float, start: int) -> None:
        self.step: tf.Variable | None = None
        self.last = start
        self._bound, self._loss = bound, math.nan

    def __call__(self, output: Mapping[str, Any]) -> None:
        """After each inner loop of training."""
        loss, step = float(output["training_loss"]), int(self.step.numpy()) if self.step is not None else 0
        if not math.isfinite(loss) or loss > self._bound:
            before = "the first" if math.isnan(self._loss) else f"after {self._loss:.3g}"
            raise RunError(
                f"the training loss of steps {self.last} to {step} is {loss:.3g}, {before}; expected a number of at "
                f"most {self._bound:.0e}: a lower learning rate or a longer warm-up may help"
            )
        self.last, self._loss = step, loss


@contextlib.contextmanager
def _faults_named(task: VideoTask, training: bool, at: Callable[[], int]) -> Iterator[None]:
    """Says what is wrong with the data or the disk where TensorFlow says where in its graph it failed."""
    try:
        yield
    except tf.errors.OpError as error:
        line = task.explain(error, training, at())
        if line is None and "No space left on device" in str(error):
            line = "no space left on device while a checkpoint was written"
        if line is None:
            raise
        raise RunError(line) from error


class _Curve:
    """Reports the points of the training curve from Orbit's outputs, which carry no step of their own.

    Seconds count from here on, so they hold tracing the graph, validating and saving, but not building the network.
    """

    def __init__(self, steps: int, measured: Mapping[str, str], report: Report) -> None:
        self.step: tf.Variable | None = None
        self._steps, self._measured, self._report = steps, measured, report
        self._began = time.monotonic()

    def trained(self, output: Mapping[str, Any]) -> None:
        """After each inner loop of training."""
        measured = {name: output[metric] for name, metric in self._measured.items()}
        self._add("train", loss=output["training_loss"], **measured, learning_rate=output["learning_rate"])

    def validated(self, output: Mapping[str, Any]) -> None:
        """After each validation."""
        self._add("validation", **{name: output[name] for name in ("loss", "top1", "top5", "videos")})

    def _add(self, split: str, **metrics: Any) -> None:
        step = int(self.step.numpy()) if self.step is not None else 0
        seconds = round(time.monotonic() - self._began, 3)
        point = {"split": split, "step": step, "seconds": seconds, **{k: float(v) for k, v in metrics.items()}}
        self._report({"event": split, "done": step, "total": self._steps, **point})


def device_versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}
