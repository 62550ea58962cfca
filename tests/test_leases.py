"""Leases in an SQLite queue: silence, fencing, and what is put into it twice."""

import optuna
import pytest
import sqlalchemy

from harness import storage
from harness.claims import Item
from harness.leases import Queue
from harness.storage import StorageError

ITEM = Item("a", "row 1", "s")


@pytest.fixture
def url(tmp_path):
    return storage.url_of(tmp_path / "queue.db")


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
