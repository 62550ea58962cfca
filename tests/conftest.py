"""What tests in all files share: what is made once for all processes of tests, small profiles, forked processes."""

import contextlib
import fcntl
import gc
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from harness.config import embedded_spec
from harness.data import embedded

EMBEDDED = embedded_spec.EmbeddedSpec()


def pytest_collection_finish():
    """Keeps what is imported by now, TensorFlow above all, out of every later look for garbage.

    Each training looks for it twice, which took a tenth of its time.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Takes jax out of Python's garbage collector, which would call it while a process of tests is being ended.

    TensorFlow loads jax where it is installed; the tests that need it start processes of their own.
    """
    gc.callbacks[:] = [one for one in gc.callbacks if not getattr(one, "__module__", "").startswith("jax")]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder once for all processes of tests: `once(name, make)` is the folder after `make(folder)`.

    Who changes what is in it copies it first.
    """
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"
    shared.mkdir(exist_ok=True)

    def made(name, make):
        folder, draft = shared / name, shared / f"{name}.draft"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                make(draft)
                draft.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session", autouse=True)
def fingerprints_counted_once(once):
    """Commands that plan with generated data which is not there draw it to learn its fingerprint: seconds a set.

    Here that is done once for all processes of tests.
    """
    from ablations.datasets import GENERATED

    count = embedded.content_fingerprint

    def fingerprint(spec):
        if spec not in GENERATED.values():
            return count(spec)
        folder = once(f"fingerprint-{spec.name}", lambda made: (made / "fingerprint").write_text(count(spec)))
        return (folder / "fingerprint").read_text()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embedded, "content_fingerprint", fingerprint)
        yield


@pytest.fixture(scope="session", autouse=True)
def sqlite_without_waiting_for_the_disk():
    """Each of thousands of commits would wait for the disk; only what outlives a power cut depends on it."""
    from sqlalchemy import engine, event

    @event.listens_for(engine.Engine, "connect")
    def connected(connection, _):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("pragma synchronous = off")

    yield
    event.remove(engine.Engine, "connect", connected)


@pytest.fixture(scope="session")
def drawn(once):
    """Puts the embedded data set, or those named, into a results folder, and returns the folder."""

    def into(results, specs=(EMBEDDED,)):
        for spec in specs:
            name = embedded.folder(spec, Path()).name
            whole = once(f"drawn-{name}", lambda folder, spec=spec: embedded.ensure(spec, folder))
            with contextlib.suppress(FileExistsError):
                shutil.copytree(embedded.folder(spec, whole), embedded.folder(spec, results / "data"))
        return results

    return into


@pytest.fixture(scope="session")
def data(once):
    """The tiny data set."""
    return _data("SPEC", once)


@pytest.fixture(scope="session")
def other_data(once):
    """The tiny data set to pre-train on."""
    return _data("OTHER", once)


def _data(spec, once):
    from tests.support import tiny

    asked = getattr(tiny, spec)
    return tiny.Data.drawn(asked, once(f"tiny-{asked.name}", lambda folder: embedded.ensure(asked, folder)))


@pytest.fixture
def tiny_profile(monkeypatch):
    """Commands know the profile `tiny`, whose data set is to be given."""
    from ablations.profiles import PROFILES
    from tests.support.tiny import TINY

    monkeypatch.setitem(PROFILES, TINY.name, TINY)
    return TINY


@pytest.fixture
def trained(once, data, other_data, tmp_path):
    """A copy of a store of :mod:`tests.support.trained`, by its name, that was trained once for all tests."""
    from harness.store.run_store import Store
    from tests.support import trained

    def copied(name, folder="results"):
        make = trained.STORES[name]
        made = once(f"trained{make.__name__}", lambda stores: make(stores, data, other_data))
        return Store(Path(shutil.copytree(made / name, tmp_path / folder, dirs_exist_ok=True)))

    return copied


@pytest.fixture(autouse=True)
def forked_training_processes(request):
    """Training processes that commands start in the tests' own process are forked from one that is ready."""
    from tests.support import forked

    if request.node.get_closest_marker("real_processes"):
        yield
        return
    with forked.training_processes():
        yield


@pytest.fixture(scope="session")
def training_process():
    """A training process that stays from command to command, forked with the first of them."""
    from tests.support import forked

    with forked.KeptProcess() as kept:
        yield kept


@pytest.fixture
def kept_process(training_process):
    """Commands that the test calls train in one process, which stays for the tests after it."""
    with training_process.used():
        yield


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """Commands that the test calls only pretend to train, in no time; the folder of data that they take."""
    from tests.support import pretend

    monkeypatch.setenv("PRETEND_SECONDS", "0")
    pretend.make_data(tmp_path / "clips")
    with pretend.pretending():
        yield tmp_path / "clips"


@pytest.fixture
def compiled(monkeypatch):
    """The tasks that would be compiled, each time, and how many at a time; each is found to fit."""
    from harness.accelerators import compilation
    from harness.accelerators.compilation import Progress
    from harness.accelerators.results import Results
    from tests.accelerators.test_results import result

    asked = []

    def compile_all(tasks, jobs):
        asked.append(([(task.program.key, task.slice_) for task in tasks], jobs))
        for number, task in enumerate(tasks):
            Results(task.results).write(result(task.program, topology=task.slice_.topology))
            yield Progress(number, "tracing")
            yield Progress(number, "3 s", ended=True)

    monkeypatch.setattr(compilation, "compile_all", compile_all)
    return asked
