"""Files of tests run in the order of how long they take, the longest first: so both processes end at about one time."""

import contextlib
import fcntl
import gc
import os
import shutil

import pytest

from harness.data import embedded

EMBEDDED = embedded.EmbeddedSpec()
SLOWEST = (
    "test_chains",
    "test_runner",
    "test_interruptions",
    "test_workers",
    "test_bad_input",
    "test_prepare_data",
    "test_scaling_sweep",
    "test_bucket",
    "test_import_garden",
    "test_preflight",
    "test_study",
    "test_tpu_costing",
    "test_tpu_compiler",
    "test_explaining",
    "test_self_supervision",
    "test_contrastive",
    "test_speed",
    "test_sharing",
    "test_tracking",
    "test_simulation",
    "test_garden",
    "test_tpu_lowering",
    "test_own_study",
    "test_credit",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


def pytest_sessionfinish():
    """Takes jax out of Python's garbage collector, which would call it while a process of tests is being ended.

    TensorFlow loads jax where it is installed; the tests that need it start processes of their own.
    """
    gc.callbacks[:] = [one for one in gc.callbacks if not getattr(one, "__module__", "").startswith("jax")]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Puts the embedded data set, or those named, into a results folder, and returns the folder.

    Each is drawn once for all tests that only train on it, in all processes: that takes as long as their trainings.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "drawn"

    def into(results, specs=(EMBEDDED,)):
        shared.mkdir(exist_ok=True)
        for spec in specs:
            with (shared / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                embedded.ensure(spec, shared)
            with contextlib.suppress(FileExistsError):
                shutil.copytree(embedded.folder(spec, shared), embedded.folder(spec, results / "data"))
        return results

    return into


@pytest.fixture
def compiled(monkeypatch):
    """The tasks that would be compiled, each time, and how many at a time; each is found to fit."""
    from test_tpu_results import result

    from harness.tpu import compiling
    from harness.tpu.compiling import Progress
    from harness.tpu.results import Results

    asked = []

    def compile_all(tasks, jobs):
        asked.append(([(task.program.key, task.slice_) for task in tasks], jobs))
        for number, task in enumerate(tasks):
            Results(task.results).write(result(task.program, topology=task.slice_.topology))
            yield Progress(number, "tracing")
            yield Progress(number, "3 s", ended=True)

    monkeypatch.setattr(compiling, "compile_all", compile_all)
    return asked
