"""Every error that a user may meet has one root; what has not is a fault of the program, and shows its traceback."""

import importlib
import pkgutil

import click
import pytest
from click.testing import CliRunner

import harness
from harness.cli import options
from harness.config.experiment import SettingsError
from harness.scheduler.optuna_storage import UnansweredError
from harness.system.errors import HarnessError

# These pass between parts of the program, and end in a sentence of their own.
INTERNAL = {"Interrupted", "LostError", "RefusedError", "SecondWriterError", "SilentError", "Stopped", "TooLargeError"}
CLICKS = {"Mistake", "Temporary"}
NEED_JAX = ("harness.accelerators.tpu_compiler", "harness.accelerators.lower", "harness.accelerators.proving")


def test_errors_have_one_root():
    modules = [module.name for module in pkgutil.walk_packages(harness.__path__, "harness.")]
    kinds = [
        value
        for name in modules
        if name not in NEED_JAX
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == name
    ]
    assert len([kind for kind in kinds if issubclass(kind, HarnessError)]) > 20
    outside = {kind.__name__ for kind in kinds if not issubclass(kind, HarnessError)}
    assert {name for name in outside if not name.startswith("_")} <= INTERNAL | CLICKS


def ended_by(error):
    @click.command()
    @options.one_line_errors
    def command():
        raise error

    return CliRunner().invoke(command)


@pytest.mark.parametrize(("kind", "code"), [(HarnessError, 2), (SettingsError, 2), (UnansweredError, 75)])
def test_a_users_error_is_one_line_and_its_exit_code(kind, code):
    done = ended_by(kind("a: no such file; name another"))
    assert (done.exit_code, done.output) == (code, "Error: a: no such file; name another\n")


def test_a_fault_of_the_program_shows_its_traceback():
    assert isinstance(ended_by(ValueError("shapes differ")).exception, ValueError)
