"""Traces the step of a program with TensorFlow, as in training, and lowers it to HLO, XLA's language.

The step is that of the Garden's task: loss, weight decay, gradients, their sum over the cores, optimizer, batch
statistics and metrics; and the exchange of embeddings, if clips are contrasted with those of all cores. The additions
of a trainer are left out, since they cost next to nothing: the step counter, the mean of the loss, and the other
exchanges between cores (batch statistics, an average over them, predictions). Nothing is trained; the weights only give
their shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions
from official.modeling import optimization
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from harness.accelerators.programs import Program
from harness.config.experiment import for_protocol
from harness.data import reader
from harness.training import determinism, garden_config, tasks
from harness.training.task import Replicas


def lower(program: Program, compiled: bool = False) -> bytes:
    """Returns the serialized, unoptimised HLO module of the step for one of `program.cores` equal cores.

    The module's parameters are the batch of one core and the variables. Its results are the step's results and the
    variables that it changed, which share their memory with the parameters.

    Args:
      program: the program.
      compiled: whether XLA must be able to compile it for the CPU.

    Raises:
      SettingsError: settings that the Garden cannot build.
    """
    run = program.run
    settings, bookkeeping = dict(run.settings), dict(run.bookkeeping)
    if program.kind == "evaluation":
        settings, bookkeeping = for_protocol(run, run.protocol)
        settings["trainer.optimizer_config.ema"] = None  # training has already averaged the weights to evaluate
    with determinism.of_run(run):
        config = garden_config.build(settings, bookkeeping)
        make = _train_step if program.kind == "train" else _evaluation_step
        step, inputs = make(config, program)
        flat = tf.nest.flatten(inputs)

        def flattened(*tensors: tf.Tensor) -> Any:
            return step(tf.nest.pack_sequence_as(inputs, tensors))

        specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in flat]
        stages = tf.function(flattened, jit_compile=True).experimental_get_compiler_ir(*specs)
        if compiled:
            stages(stage="optimized_hlo_serialized")
        return bytes(stages(stage="hlo_serialized"))


Step = Callable[[Any], Any]


def _train_step(config: config_definitions.ExperimentConfig, program: Program) -> tuple[Step, Any]:
    """Returns the train step, and the specification of one core's input."""
    config.task.train_data.global_batch_size = program.clips
    source = _source(program)
    replicas = functools.partial(_replicas, program.cores)
    task = tasks.task_maker(program.run.settings)(config.task, source, source, replicas=replicas)
    model = task.build_model()
    optimizer = task.create_optimizer(config.trainer.optimizer_config, config.runtime)
    if isinstance(optimizer, optimization.ExponentialMovingAverage):
        optimizer.shadow_copy(model)
    _make_slots(optimizer, model)
    _sum_over_cores(optimizer, program.cores)
    metrics = task.build_metrics(training=True)

    def step(inputs: Any) -> Any:
        return task.train_step(inputs, model, optimizer, metrics)

    return step, task.build_inputs(config.task.train_data).element_spec


def _evaluation_step(config: config_definitions.ExperimentConfig, program: Program) -> tuple[Step, Any]:
    """Returns the evaluation step, and the specification of one core's input."""
    config.task.validation_data.global_batch_size = program.clips
    task = tasks.task_maker(program.run.settings)(config.task, None, _source(program))
    model = task.build_model()

    def step(inputs: Any) -> Any:
        return task.validation_step(inputs, model)

    return step, task.build_inputs(config.task.validation_data).element_spec


def _source(program: Program) -> reader.Source:
    """Returns a split that is never read; its videos may have any size, up to the largest that can be evaluated."""
    return reader.Source(("none",), (program.run.data.train_videos,), program.run.data.classes)


def _make_slots(optimizer: Any, model: tf_keras.Model) -> None:
    """Creates the optimizer's variables, since a compiled function cannot create them."""
    _ = optimizer.iterations
    optimizer._create_all_weights(model.trainable_variables)


def _sum_over_cores(optimizer: Any, cores: int) -> None:
    """Makes an optimizer sum gradients over a number of cores, as under a strategy with as many replicas."""
    if cores == 1:
        return

    def summed(pairs: Any) -> list[tuple[tf.Tensor, tf.Variable]]:
        return [(_summed(gradient, cores), variable) for gradient, variable in pairs]

    base = optimizer
    while hasattr(base, "_optimizer"):  # wrapped in one that averages weights or scales the loss
        base = base._optimizer
    base.gradient_aggregator = summed


def _replicas(cores: int) -> Replicas:
    """Returns the cores as the replicas of a strategy."""
    number = tf.cast(gen_xla_ops.xla_replica_id(), tf.int32)
    return Replicas(cores, number, lambda value: _summed(value, cores))


def _summed(value: tf.Tensor, cores: int) -> tf.Tensor:
    everyone = [list(range(cores))]
    return gen_xla_ops.xla_all_reduce(value, everyone, reduce_op="Add", mode="CrossReplica")
