"""The lowered step is the one that is trained: its sums, its variables, and what rows of one program have alike."""

import pytest
import tf_keras
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.compiler.xla.service import hlo_pb2

from ablations.profiles import QUICK
from ablations.stages import CVRL
from ablations.table2 import STUDY
from ablations.toggles import EMA
from harness.accelerators import lower, programs
from harness.config import experiment
from harness.config.experiment import DatasetInfo
from harness.config.studies import Cell
from harness.training import garden_config, tasks
from harness.training.task import VideoTask

DATA = DatasetInfo("clips", 8, 512, 240, "0" * 64)


def run_of(applied, replicas=8):
    return experiment.complete(Cell(applied), QUICK, DATA, replicas=replicas)


def row(number):
    return run_of(next(one for one in STUDY.rows if one.number == number).applied)


def module_of(program):
    found = hlo_pb2.HloModuleProto()
    found.ParseFromString(lower.lower(program))
    return found


def instructions(module):
    return [one for computation in module.computations for one in computation.instructions]


def count(module, opcode):
    return sum(one.opcode == opcode for one in instructions(module))


def task():
    run = row(1)
    return VideoTask(garden_config.build(run.settings, run.bookkeeping).task, None, None)


@pytest.fixture(scope="module")
def model():
    """The baseline's network, as the Garden builds it."""
    return task().build_model()


@pytest.fixture(scope="module")
def module():
    """The baseline's train step on eight cores."""
    return module_of(programs.of_run(row(1), 8)[0])


def test_what_is_private_of_tensorflow_is_where_it_was():
    assert callable(gen_xla_ops.xla_all_reduce)
    assert callable(tf_keras.optimizers.legacy.SGD()._create_all_weights)


def test_gradients_of_every_variable_are_summed_over_the_cores(model, module):
    assert count(module, "all-reduce") == len(model.trainable_variables)
    groups = {
        tuple(group.replica_ids)
        for one in instructions(module)
        if one.opcode == "all-reduce"
        for group in one.collective_device_list.replica_groups
    }
    assert groups == {tuple(range(8))}
    alone, _ = programs.of_run(run_of((), replicas=1), 1)
    assert count(module_of(alone), "all-reduce") == 0


def test_the_variables_a_step_changes_share_their_memory(model, module):
    """Weights and their momentum, batch statistics, metrics, and the number of the step."""
    momentum = len(model.trainable_variables)
    metrics = sum(len(metric.variables) for metric in task().build_metrics(training=True))
    changed = len(model.variables) + momentum + metrics + 1
    assert len(module.input_output_alias.entries) == changed


def test_an_average_of_the_weights_has_a_variable_for_each(model, module):
    averaged = module_of(programs.of_run(run_of((EMA.at(),)), 8)[0])
    more = len(averaged.input_output_alias.entries) - len(module.input_output_alias.entries)
    assert more == len(model.variables)


def shapes(module):
    """What is computed, in order, without the constants."""
    return [(one.opcode, one.shape.SerializeToString()) for one in instructions(module)]


def test_rows_that_share_a_program_compute_the_same(module):
    """Rows 4 and 6 differ in epochs and scale jittering alone."""
    four, six = (programs.of_run(row(number), 8)[0] for number in (4, 6))
    assert four.key == six.key
    shared = shapes(module_of(six))
    assert shapes(module_of(four)) == shared
    assert four.run.settings != six.run.settings
    assert shapes(module) != shared  # row 1 has neither label smoothing nor stochastic depth


@pytest.mark.slow
def test_embeddings_are_gathered_from_all_cores():
    """Of both clips, and of the gradients of what was gathered; each core says where its own are by its number."""
    run = experiment.complete(Cell((), stages=(CVRL,)), QUICK, DATA, replicas=8)
    found = module_of(programs.of_run(run, 8)[0])
    network = tasks.task_maker(run.settings)(
        garden_config.build(run.settings, run.bookkeeping).task, None, None
    ).build_model()
    assert count(found, "all-reduce") == len(network.trainable_variables) + 4
    assert count(found, "replica-id") > 0
