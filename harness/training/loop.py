"""Trains and evaluates one run with the Garden's task and Orbit's trainer; knows no toggles, studies or result files.

While it works it reports events, plain mappings such as {"event": "train", "step": ..., ...}, by calling a function.
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

OnEvent = Callable[[Mapping[str, Any]], None]
ShouldStop = Callable[[], str | None]
# Raises `LostError` if another worker has taken over the run. True means that something is about to be written, so that
# the check must be made now; False means that the result of the last check is good enough.
AssertOwner = Callable[[bool], None]
# Parts of TensorFlow's messages when a worker is gone: from its collectives, and from its coordination service.
_DESERTIONS = ("Collective ops", "oordination service", "CoordinationService", "/job:worker/")


def never_stop() -> None:
    """Never asks to stop; the default of `stop`."""


def always_owner(_: bool) -> None:
    """Never finds the run lost, since nobody else can train it; the default of `hold`."""


@dataclasses.dataclass(frozen=True)
class RunContext:
    """Where a run is carried out: folders and devices; none of this can change the run's result.

    Attributes:
      data: folder of the prepared data set.
      checkpoints: folder of the attempt's checkpoints.
      devices: the devices to use.
      parent: path of the weights that the run starts from; None if it starts from its seed.
      scratch: folder for files that a worker other than the chief has to write and nobody reads.
      origins: checkpoint folders of the earlier attempts that it can resume from, latest first.
    """

    data: str
    checkpoints: str
    devices: Devices = Devices()
    parent: str | None = None
    scratch: str = ""
    origins: tuple[str, ...] = ()

    @property
    def written(self) -> str:
        """Folder for the checkpoints of this process; all workers save, but only the chief's checkpoints are kept."""
        return self.checkpoints if self.devices.chief else self.scratch

    def bookkeeping(self) -> dict[str, Any]:
        """Returns the Garden's fields that hold the same information."""
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
    """Returns path and step of the last complete training checkpoint in a folder, or None if there is none."""
    location = paths.path_of(folder)
    step = checkpoints.listed(location)
    if step is None:
        # TensorFlow's list is lost, or a kill came before it was first written: any checkpoint may be incomplete.
        complete = (
            candidate
            for candidate in reversed(checkpoints.steps(location))
            if _is_whole(str(checkpoints.training(location, candidate)))
        )
        step = next(complete, None)
    return None if step is None else (str(checkpoints.training(location, step)), step)


def furthest(place: RunContext) -> tuple[str, int] | None:
    """Returns path and step of the furthest checkpoint of this and earlier attempts, or None if there is none."""
    last_checkpoints = [
        checkpoint for folder in (place.checkpoints, *place.origins) if (checkpoint := last_checkpoint(folder))
    ]
    return max(last_checkpoints, key=lambda checkpoint: checkpoint[1], default=None)


def weights(folder: str, step: int) -> str:
    """Returns the path of the weights that are kept once a training has reached its last step."""
    return str(checkpoints.weights(paths.path_of(folder), step))


def trained(run: Run, place: RunContext) -> str | None:
    """Returns the path of the weights after a run's last step, or None if no attempt has finished the training.

    If a kill came while the weights were written, the result is None, and training resumes from the last checkpoint,
    which has no step left to train, to write the weights again.

    Raises:
      RunError: the weights are damaged, and there is no checkpoint to write them from again.
    """
    step = run.settings["trainer.train_steps"]
    damaged: RunError | None = None
    for folder in (place.checkpoints, *place.origins):
        path = weights(folder, step)
        if paths.path_of(path + ".index").is_file():
            try:
                return _readable(path)
            except RunError as error:
                damaged = damaged or error
    if damaged is not None and ((last := furthest(place)) is None or last[1] != step):
        raise damaged
    return None


def _is_whole(path: str) -> bool:
    with contextlib.suppress(RunError):
        return bool(_readable(path))
    return False


def _readable(path: str) -> str:
    """Checks every byte of a checkpoint against its checksums, and returns its path.

    Raises:
      RunError: the checkpoint is damaged.
    """
    try:
        checkpoint = tf.train.load_checkpoint(path)
        for name in checkpoint.get_variable_to_shape_map():
            checkpoint.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise RunError(
            f"{path}: damaged checkpoint, its checksums or its index do not hold; remove its files to go on from the "
            "one before, where there is one, or to train from the first step"
        ) from error
    return path


@functools.cache
def strategy_for(devices: Devices) -> tf.distribute.Strategy:
    """Makes the distribution strategy with the Garden's utility, once a process, as TPUs and workers require.

    Raises:
      DevicesError: this machine cannot provide the strategy.
    """
    runtime = RunContext("", "", devices).bookkeeping()
    try:
        if devices.strategy == MULTI_WORKER:
            # The Garden would prefer it to the devices given, which were already read from it if it is set.
            os.environ.pop("TF_CONFIG", None)
            distribute_utils.configure_cluster(runtime["runtime.worker_hosts"], devices.task_index)
        strategy = distribute_utils.get_distribution_strategy(
            distribution_strategy=devices.strategy,
            num_gpus=runtime["runtime.num_gpus"],
            tpu_address=devices.tpu,
        )
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        requested = f"{devices.strategy} {devices.tpu}" if devices.tpu else devices.strategy
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise DevicesError(f"strategy {requested}: this machine does not give it ({reason})") from error
    return strategy


def _refuse_other_replicas(strategy: tf.distribute.Strategy, run: Run, place: RunContext) -> None:
    """Checks the number of replicas, on which the result depends: each computes its own batch statistics.

    Raises:
      DevicesError: the strategy has another number of replicas than the run was planned for.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas != run.replicas:
        raise DevicesError(
            f"strategy {place.devices.strategy} gives {replicas} replicas here, the run was planned for "
            f"{run.replicas}: say --replicas {replicas}"
        )


def train(
    run: Run,
    manifest: Manifest,
    place: RunContext,
    report: OnEvent,
    stop: ShouldStop = never_stop,
    hold: AssertOwner = always_owner,
) -> str:
    """Trains a run to its last step, from its furthest checkpoint if there is one, and writes its weights.

    Args:
      run: the run.
      manifest: manifest of the data set.
      place: where the run is carried out.
      report: is called with each event.
      stop: is called after each inner loop and each validation batch; returns a reason to stop, or None to continue.
      hold: is called at the same points and before each checkpoint; raises if another worker has taken over the run.

    Returns:
      The device that trained, in words.

    Raises:
      SettingsError: the Garden or this machine cannot carry out the settings.
      RunError: data or checkpoints are damaged, or the loss is not finite or too large.
      Interrupted: the run was asked to stop; the checkpoint of the step it reached was saved.
      LostError: another worker has taken over the run; nothing was written after that.
    """
    strategy = strategy_for(place.devices)
    origin = furthest(place)
    start = origin[1] if origin else 0
    if origin:
        _readable(origin[0])
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
            origin=origin,
            saves=_Saves(hold, place),
        )
        curve.step = finite.step = runner.trainer.global_step
        stopper.controller = runner.controller
        report({"event": "attempt", "step": start, **(attempts.origin(origin[0]) if origin else {})})
        with strategy.scope(), _faults_named(task, True, lambda: finite.last):
            # Creates the variables that the train step reads: within the step, replicas on several devices could not
            # create the step counter, and a step that creates variables is traced twice.
            runner.trainer.optimizer._create_all_weights(runner.trainer.model.trainable_variables)
            _train(runner.controller, config.trainer, task.validates)
        with strategy.scope(), _faults_named(task, True, lambda: finite.last):
            hold(True)
            _write_weights(runner.trainer, weights(place.written, config.trainer.train_steps))
            if place.devices.workers > 1:
                _anyone(False)  # wait until the chief has written the weights, which all workers evaluate
        return _device(strategy, place)


def _train(controller: orbit.Controller, trainer: config_definitions.TrainerConfig, validates: bool) -> None:
    if validates:
        controller.train_and_evaluate(trainer.train_steps, trainer.validation_steps, trainer.validation_interval)
    else:
        controller.train(trainer.train_steps)


def shrink(run: Run, checkpoint: str, place: RunContext) -> str:
    """Reduces a training checkpoint to the weights that evaluation and fine-tuning need.

    Args:
      run: the run that the checkpoint belongs to.
      checkpoint: path of the checkpoint: "folder/ckpt-208".
      place: where the run is carried out; the weights are written into its folder of checkpoints.

    Returns:
      The path of the weights.

    Raises:
      RunError: the checkpoint is damaged.
      AssertionError: the checkpoint holds another network.
    """
    strategy = strategy_for(place.devices)
    with determinism.of_run(run), strategy.scope():
        config = garden_config.build(run.settings, {**run.bookkeeping, **place.bookkeeping()})
        task = tasks.task_maker(run.settings)(config.task, None, reader.Source((), (), 1))
        trainer = _evaluator(config, task, evaluate=False)
        trainer.checkpoint.restore(_readable(checkpoint)).assert_existing_objects_matched().expect_partial()
        path = weights(place.checkpoints, config.trainer.train_steps)
        _write_weights(trainer, path)
    return path


def _write_weights(trainer: base_trainer.Trainer, path: str) -> None:
    """Writes the weights that are evaluated: the averaged ones if the optimizer averages weights.

    Averages are assigned to the variables, since swapping them, as a validation does, would change the last digits. So
    the trainer must not be used after this.
    """
    averaging = trainer.optimizer
    if isinstance(averaging, optimization.ExponentialMovingAverage):
        for variable in trainer.model.variables:
            with contextlib.suppress(KeyError):  # only trainable variables have an average
                variable.assign(averaging.get_slot(variable, "average"))
    tf.train.Checkpoint(model=trainer.model, **trainer.model.checkpoint_items).write(path)


def evaluate(
    run: Run,
    protocol: Protocol,
    manifest: Manifest,
    place: RunContext,
    report: OnEvent,
    stop: ShouldStop = never_stop,
    hold: AssertOwner = always_owner,
) -> tuple[Predictions, str, float, str]:
    """Evaluates the weights of a trained run under a protocol.

    Returns:
      The predictions, the path of the weights, the seconds it took and the device in words.

    Raises:
      SettingsError: the run was not trained to its last step.
      RunError: data or weights are damaged.
      Interrupted: the evaluation was asked to stop.
      LostError: another worker has taken over the run.
    """
    strategy = strategy_for(place.devices)
    with determinism.of_run(run):
        settings, bookkeeping = for_protocol(run, protocol)
        # The weights that were kept are already the averaged ones.
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
    """Loads weights into a network.

    Raises:
      RunError: the weights belong to another network.
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
    """Makes the Garden's trainer for evaluation only."""
    return train_utils.create_trainer(config, task, train=False, evaluate=evaluate, trainer_cls=_Trainer)


def _task(
    config: config_definitions.ExperimentConfig,
    run: Run,
    manifest: Manifest,
    place: RunContext,
    start_step: int | None,
    evaluated: Callable[[int], None] | None = None,
) -> VideoTask:
    """Makes the task of a run; without training data if `start_step`, the step they begin at, is None."""
    classes, frame = len(manifest.classes), (manifest.height, manifest.width)
    train, validation = (
        reader.Source.of(place.data, manifest.splits[split], classes, frame) for split in ("train", "validation")
    )
    source = None if start_step is None else train
    return tasks.task_maker(run.settings)(config.task, source, validation, start_step or 0, evaluated)


def _device(strategy: tf.distribute.Strategy, place: RunContext) -> str:
    kind = "TPU" if place.devices.tpu else "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return f"{strategy.num_replicas_in_sync} x {kind}, {os.cpu_count()} CPU cores, {place.devices.strategy}"


def _progress(event: str, done: int, total: int) -> dict[str, Any]:
    return {"event": event, "done": done, "total": total}


class _Stopper:
    """Saves a checkpoint and raises :class:`Interrupted` once training is asked to stop.

    The preemption of a TPU is a request to stop too: TensorFlow's PreemptionWatcher learns of it from the TPU's
    coordination service.
    """

    def __init__(self, stop: ShouldStop, hold: AssertOwner, devices: Devices) -> None:
        self.controller: Any = None
        self._stop, self._hold, self._several = stop, hold, devices.workers > 1
        self._watcher = tf.distribute.experimental.PreemptionWatcher() if devices.strategy == "tpu" else None

    def after_loop(self, _: Mapping[str, Any]) -> None:
        """Stops training after an inner loop; all workers stop if one is asked to, since they save only together."""
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
        """Stops a validation after a batch; several workers finish the validation, so that they stay in step."""
        self._hold(False)
        if not self._several and (reason := self._reason()):
            raise Interrupted(reason)

    def _reason(self) -> str | None:
        if self._watcher is not None and self._watcher.preemption_message:
            return "the TPU is being preempted"
        return self._stop()


def _anyone(vote: bool) -> bool:
    """Returns whether any worker passes true; all workers have to call this at the same point."""
    strategy = tf.distribute.get_strategy()
    votes = strategy.run(lambda: tf.constant(float(vote)))
    return float(strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)) > 0


def _refuse_another_run(strategy: tf.distribute.Strategy, what: str) -> None:
    """Checks that all workers are about to train the same run from the same step.

    Args:
      strategy: the distribution strategy.
      what: the run and the step of this worker.

    Raises:
      DevicesError: the workers' runs or steps differ.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    encoded = tf.constant([list(what.ljust(64).encode())], tf.int32)
    gathered = strategy.run(lambda: tf.distribute.get_replica_context().all_gather(encoded, axis=0))
    lines = strategy.experimental_local_results(gathered)[0].numpy()
    plans = sorted({bytes(line.tolist()).decode().strip() for line in lines})
    if len(plans) > 1:
        raise DevicesError(
            f"the workers would train different runs together ({'; '.join(plans)}): start all of them with the same "
            "flags and one --results folder that all of them see"
        )


def is_desertion(error: BaseException | None) -> bool:
    """Returns whether an error means only that another of the workers that train together is gone.

    TensorFlow has no class for this error, and a fault in this worker's own data aborts its collectives too. The class
    and the message together tell the two apart.
    """
    kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
    while error is not None:
        if isinstance(error, kinds) and any(mark in str(error) for mark in _DESERTIONS):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Saves:
    """Checks that the run is still held before a checkpoint is saved, and removes earlier attempts' after the first."""

    def __init__(self, hold: AssertOwner, place: RunContext) -> None:
        self._hold = hold
        self._origins = list(place.origins) if place.devices.chief else []

    def before(self) -> None:
        """Raises `LostError` if another worker has taken over the run."""
        self._hold(True)

    def after(self) -> None:
        """Removes the checkpoints of earlier attempts, now that this attempt has a complete one."""
        while self._origins:
            checkpoints.drop_training(paths.path_of(self._origins.pop()))


class _Trainer(base_trainer.Trainer):
    """The Garden's trainer, which reads the data pipeline directly if the only device is the processor.

    TensorFlow would pass every batch through a second pipeline, whose automatic tuning cannot be turned off. For what
    that costs when a pipeline ends, see :mod:`harness.data.reader`, which turns it off for pipelines of its own that
    have nothing to tune.
    """

    def distribute_dataset(self, dataset_or_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """See :class:`official.core.base_trainer.Trainer`."""
        if callable(dataset_or_fn) and _is_one_processor(self.strategy):
            return dataset_or_fn(*args, **kwargs)
        return super().distribute_dataset(dataset_or_fn, *args, **kwargs)


def _is_one_processor(strategy: tf.distribute.Strategy) -> bool:
    # Counts the replicas of all workers, since `worker_devices` lists only the devices of this one.
    device = tf.DeviceSpec.from_string(strategy.extended.worker_devices[0])
    return strategy.num_replicas_in_sync == 1 and device.device_type == "CPU"


class _Runner(train_lib.OrbitExperimentRunner):
    """The Garden's runner, in which all workers resume from the chief's checkpoint.

    In the Garden's own, workers other than the chief would start from the beginning.

    Args:
      *args: as for the Garden's runner.
      origin: path and step of the checkpoint to resume from; None to start from the beginning.
      saves: is called before and after each checkpoint is saved.
      **kwargs: as for the Garden's runner.
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
    """TensorFlow's checkpoint manager, which can resume from a checkpoint in another folder."""

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
        """See :class:`tf.train.CheckpointManager`; called after each inner loop, it writes only when a save is due."""
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
    """Orbit's controller, which saves before each validation and names faults in the validation data."""

    def evaluate(self, steps: int = -1) -> Any:
        """See :class:`orbit.Controller`."""
        # During a validation, averaged weights replace the trained ones, so that a stop could not save a checkpoint.
        self.save_checkpoint()
        with _faults_named(self.evaluator.task, False, lambda: 0):
            return super().evaluate(steps)


class _Finite:
    """Ends a training whose loss is not finite or exceeds the Garden's bound, before its state is saved."""

    def __init__(self, bound: float, start: int) -> None:
        self.step: tf.Variable | None = None
        self.last = start
        self._bound, self._loss = bound, math.nan

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Checks the loss after an inner loop of training.

        Raises:
          RunError: the loss is not finite or too large.
        """
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
    """Replaces TensorFlow's errors, which name a node of its graph, by errors that name the fault in data or disk.

    Args:
      task: the task.
      training: whether training data are read, not validation data.
      at: returns the last step, or number of videos, without an error.

    Raises:
      RunError: the data are damaged, or the disk is full.
    """
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
    """Reports the points of the training curve from Orbit's outputs, to which it adds the step.

    Seconds count from the creation of this object. So they include tracing the graph, validating and saving, but not
    building the network.
    """

    def __init__(self, steps: int, measured: Mapping[str, str], report: OnEvent) -> None:
        self.step: tf.Variable | None = None
        self._steps, self._measured, self._report = steps, measured, report
        self._began = time.monotonic()

    def trained(self, output: Mapping[str, Any]) -> None:
        """Reports a point after an inner loop of training."""
        measured = {name: output[metric] for name, metric in self._measured.items()}
        self._add("train", loss=output["training_loss"], **measured, learning_rate=output["learning_rate"])

    def validated(self, output: Mapping[str, Any]) -> None:
        """Reports a point after a validation."""
        self._add("validation", **{name: output[name] for name in ("loss", "top1", "top5", "videos")})

    def _add(self, split: str, **metrics: Any) -> None:
        step = int(self.step.numpy()) if self.step is not None else 0
        seconds = round(time.monotonic() - self._began, 3)
        point = {"split": split, "step": step, "seconds": seconds, **{k: float(v) for k, v in metrics.items()}}
        self._report({"event": split, "done": step, "total": self._steps, **point})


def device_versions() -> dict[str, str]:
    """Returns the versions of the libraries that compute results."""
    return {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}
