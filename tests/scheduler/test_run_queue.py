"""Leases in an SQLite queue: silence, fencing, what is put into it twice, and processes that take from it at once."""

import multiprocessing
import os
import shutil
import tempfile
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy

from harness.scheduler import liveness, optuna_storage, orchestrator, run_queue
from harness.scheduler.optuna_storage import StorageError, UnansweredError
from harness.scheduler.run_queue import LEASE, Queue
from harness.scheduler.run_states import Item

ITEM = Item("a", "row 1", "s")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with Optuna's tables and nothing in them: making them takes longer than a test."""
    path = tmp_path_factory.mktemp("made") / "queue.db"
    optuna_storage.open_storage(optuna_storage.url_of(path)).engine.dispose()
    return path


@pytest.fixture
def url(tables, tmp_path):
    return optuna_storage.url_of(shutil.copy(tables, tmp_path / "queue.db"))


def claimed(queue):
    assert queue.reconcile([ITEM], set, 0)["a"].name == "waiting"
    return queue.claim()


def silence(queue):
    """Makes every heartbeat an old one."""
    with queue._storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = datetime('now', '-1 day')"))


def states(queue):
    return [one.state for one in queue.attempts()]


def test_a_silent_worker_loses_its_run_for_good_and_it_costs_no_retry(url):
    queue, other = Queue(url), Queue(url)
    lease = claimed(queue)
    assert lease.held(True)
    silence(other)
    assert other.reconcile([ITEM], set, 0)["a"].name == "waiting"
    assert states(other) == ["stale", "waiting"]
    assert not lease.held(True)
    lease.done(0.5)
    lease.failed("late", "")
    lease.preempted("late")
    assert states(other) == ["stale", "waiting"]


def test_an_attempt_that_fell_silent_between_cause_and_end_has_its_cause(url):
    queue = Queue(url)
    lease = claimed(queue)
    queue._attach(lease.attempt.number, "cause", "failed")
    silence(queue)
    assert queue.reconcile([ITEM], set, 0)["a"].name == "failed"


def test_a_record_that_nobody_told_of_is_told(url):
    queue = Queue(url)
    claimed(queue).preempted("stopped")
    assert queue.reconcile([ITEM], lambda: {"a"}, 0)["a"].name == "done"
    assert states(queue) == ["preempted", "done"]


def test_two_that_reconcile_the_same_leave_one_open(url):
    queue, other = Queue(url), Queue(url)
    queue.add(ITEM)
    other.add(ITEM)
    for one in (queue, other):
        one.reconcile([ITEM], set, 0)
    assert states(queue) == ["waiting", "superseded"]
    assert queue.claim() is not None
    assert other.claim() is None


def test_other_leases_and_other_studies_are_refused(url):
    queue = Queue(url, lease=10)
    with pytest.raises(StorageError, match="shared with a lease of 10 seconds"):
        Queue(url, lease=20)
    optuna.load_study(study_name="runs", storage=queue._storage).add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StorageError, match="is not this harness's"):
        queue.attempts()


# Processes of their own. They are not forked from this one, which may have threads.

PROCESSES, RUNS = 4, 25
FORKS = multiprocessing.get_context("forkserver")
# What each of them would load for itself.
FORKS.set_forkserver_preload(
    ["harness.scheduler.run_queue", "pytest", "alembic.command", "psycopg", "sqlalchemy.dialects.postgresql"]
)
SECONDS = 120  # after which a process that says nothing has failed


def begun(function, count, *given):
    """Processes that call a function with an end of a pipe, and the other ends of them."""
    ends = [FORKS.Pipe() for _ in range(count)]
    made = [FORKS.Process(target=function, args=(end, *given), daemon=True) for _, end in ends]
    for one in made:
        one.start()
    return made, [end for end, _ in ends]


def heard(end):
    assert end.poll(SECONDS), "a process said nothing"
    return end.recv()


def takes(end, url, barrier, items):
    """Opens a queue, fills it and takes from it, all in step with others; says what it got."""
    barrier.wait(SECONDS)
    queue = Queue(url)
    barrier.wait(SECONDS)
    queue.reconcile(items, set, 0)
    barrier.wait(SECONDS)
    standings = queue.reconcile(items, set, 0)
    run_queue = []
    for _ in items:
        barrier.wait(SECONDS)
        run_queue.append(queue.claim())
    mine = [one for one in run_queue if one]
    names = {one.name for one in standings.values()}
    end.send((queue.lease, names, [one.attempt.number for one in mine], sum(one.held(True) for one in mine)))


def race(url, count, runs):
    """What so many processes got that opened a fresh database at once and took from it in step."""
    items = [Item(f"{number:016x}", f"row {number}", "s", number) for number in range(runs)]
    barrier = FORKS.Barrier(count)
    made, ends = begun(takes, count, url, barrier, items)
    found = [heard(end) for end in ends]
    for one in made:
        one.join(SECONDS)
    return found


def check_race(url, count, runs):
    """Each of so many runs was taken once by all of so many processes, and none of them failed."""
    found = race(url, count, runs)
    assert [lease for lease, *_ in found] == [LEASE] * count
    assert [names for _, names, *_ in found] == [{"waiting"}] * count
    taken = sorted(number for *_, numbers, _ in found for number in numbers)
    assert taken == sorted(set(taken)), "an attempt was taken twice"
    running = [one for one in Queue(url).attempts() if one.state == "running"]
    assert [one.number for one in running] == taken
    assert sorted(one.item.order for one in running) == list(range(runs))
    assert sum(held for *_, held in found) == runs


def test_processes_in_step_take_each_attempt_once(tmp_path):
    check_race(optuna_storage.url_of(tmp_path / "fresh.db"), PROCESSES, RUNS)


# Whether a worker of this machine lives.


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"r3d-ablations-{os.getuid()}"


def works(end, url, folder):
    """Takes an attempt, says so, and is at it until it is told to end it."""
    tempfile.tempdir = folder
    with liveness.present() as token:
        queue = Queue(url, token=token)
        queue.reconcile([ITEM], set, 0)
        with queue.claim():
            end.send(token)
            end.recv()


def test_a_killed_workers_attempt_is_free_at_once_and_a_living_ones_is_not(url, temporary):
    queue = Queue(url, lease=3600)
    (worker,), (end,) = begun(works, 1, url, str(temporary.parent))
    token = heard(end)
    assert queue.reconcile([ITEM], set, 0)["a"].name == "running"
    assert not liveness.gone(token)
    worker.kill()
    worker.join(SECONDS)
    assert liveness.gone(token)
    assert queue.reconcile([ITEM], set, 0)["a"].name == "waiting"
    assert states(queue) == ["stale", "waiting"]
    assert queue.claim().attempt.number == 1


def test_a_token_is_its_process_s_until_it_ends(temporary):
    with liveness.present() as token:
        assert not liveness.gone(token)
        assert (temporary / token).is_file()
    assert not liveness.gone(token), "it ended as it should, and has said so where it was at something"
    assert not any(temporary.iterdir())
    with pytest.raises(KeyError), liveness.present() as token:
        raise KeyError
    assert liveness.gone(token), "it may not have said so"


def of_another(folder, monkeypatch):
    folder.mkdir()
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    folder.rename(folder.with_name(f"r3d-ablations-{own + 1}"))


def open_to_all(folder, _):
    folder.mkdir()
    folder.chmod(0o777)


def a_link(folder, _):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def a_link_to_nothing(folder, _):
    folder.symlink_to(folder.parent / "nothing")


def a_file(folder, _):
    folder.touch(mode=0o600)


@pytest.mark.parametrize("planted", [of_another, open_to_all, a_link, a_link_to_nothing, a_file])
def test_a_folder_that_is_not_this_users_own_gives_no_token_and_no_error(temporary, monkeypatch, planted):
    token = f"{liveness._boot()}{'0' * 16}"
    planted(temporary, monkeypatch)
    with liveness.present() as found:
        assert found == ""
    folder = liveness._folder()
    if folder.is_dir():
        (folder / token).touch()  # of nobody, as it would be were its process gone
    assert not liveness.gone(token)


def test_only_a_file_of_this_machine_since_it_was_started_says_that_a_process_is_gone(temporary):
    temporary.mkdir(mode=0o700)
    mine, other = f"{liveness._boot()}{'0' * 16}", "0123456789abcdef" * 2
    for name in (mine, other):
        (temporary / name).touch()
    assert liveness.gone(mine)
    assert not liveness.gone(other)
    assert not liveness.gone(f"{liveness._boot()}{'1' * 16}"), "there is none"
    assert not liveness.gone(f"../{temporary.name}/{mine}")
    (temporary / mine).rename(temporary / "moved")
    (temporary / mine).symlink_to(temporary / "moved")
    assert not liveness.gone(mine)
    (temporary / mine).unlink()
    os.mkfifo(temporary / mine)
    liveness.gone(mine)  # does not wait for somebody to write


def test_whether_a_run_is_recorded_is_looked_at_before_something_is_written_and_with_the_heartbeats(monkeypatch):
    now, looks, there = [0.0], [], [False]
    monkeypatch.setattr(orchestrator.time, "monotonic", lambda: now[0])

    def recorded():
        looks.append(now[0])
        return there[0]

    held = orchestrator._held(SimpleNamespace(held=lambda _: True), recorded, interval=30.0)
    assert held(False) and held(True) and looks == [0.0]
    now[0] = 29.0
    assert held(False) and looks == [0.0]
    now[0], there[0] = 31.0, True
    assert not held(False) and looks == [0.0, 31.0]


def test_what_is_missing_is_added_even_while_another_process_is_paused_alone(url):
    paused, queue = Queue(url), Queue(url)
    with paused.alone():
        found = [queue.reconcile([ITEM], set, 0)["a"].name for _ in range(run_queue._PATIENCE + 1)]
    assert found == ["missing"] * run_queue._PATIENCE + ["waiting"]


def test_a_lease_that_the_storage_cannot_confirm_holds_for_as_long_as_nobody_can_have_taken_it(url, monkeypatch):
    queue = Queue(url, lease=60)
    with claimed(queue) as lease:
        monkeypatch.setattr(queue, "state", silent)
        held = orchestrator._held(lease, lambda: False, 60)
        assert held(True)
        monkeypatch.setattr(lease, "_confirmed", lease._confirmed - 61)
        assert not held(True) and not held(False)


def silent(*_):
    raise UnansweredError("a")
