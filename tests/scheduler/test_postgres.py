"""What only a PostgreSQL server shows: it is restarted and cut off, processes open it at once, it knows a password."""

import contextlib
import dataclasses
import itertools
import os
import subprocess
import sys
import threading
import traceback
import urllib.parse
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from harness.scheduler import membership, optuna_storage, run_queue
from harness.scheduler.optuna_storage import Patience, StorageError
from harness.scheduler.run_queue import Queue
from harness.store.run_store import Store
from tests.scheduler import test_membership as test_joining
from tests.scheduler.test_run_queue import ITEM, SECONDS, check_race, claimed, states
from tests.support import postgres, pretend
from tests.support.postgres import PASSWORD

_NUMBERS = itertools.count()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server():
    """A server with a database, "tables", that holds Optuna's tables and nothing in them."""
    with postgres.server() as made:
        create(made, "tables", "template0")
        optuna_storage.open_storage(at(made.url, "tables")).engine.dispose()
        yield made


@pytest.fixture
def url(server):
    """Of a database in which nothing was begun."""
    return at(server.url, create(server, f"test{next(_NUMBERS)}", "tables"))


def create(server, name, template):
    where = {"host": "127.0.0.1", "port": server.port, "user": postgres.USER, "password": PASSWORD}
    with psycopg.connect(**where, dbname=postgres.DATABASE, autocommit=True) as own:
        own.execute(f"create database {name} template {template}")
    return name


def at(url, database):
    return f"{url.rpartition('/')[0]}/{database}"


def restart(server):
    server.stop()
    server.start()


@pytest.mark.slow
def test_two_workers_share_a_sweep(url, tmp_path):
    words = ["--data", tmp_path / "clips", "--results", tmp_path / "results", "--plots", tmp_path / "plots"]
    command = [
        sys.executable,
        "-m",
        "tests.support.pretend",
        "sweep",
        *map(str, words),
        "--trials",
        "4",
        "--wandb",
        "off",
    ]
    environment = {**os.environ, "HARNESS_STORAGE": url, "PRETEND_SECONDS": "0.5"}
    pretend.make_data(tmp_path / "clips")
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in "ab"
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert len(Store(tmp_path / "results").ids()) == 4, "trained once each"
    assert "Points: 4 trained" in " ".join(said[0].split())
    assert PASSWORD not in "".join(said)


# Workers whose server is restarted.


def test_a_worker_whose_server_was_cut_off_and_restarted_beats_on_and_ends_its_run(server, url, monkeypatch):
    monkeypatch.setattr(run_queue, "_BEATS", 36_000)  # in a lease of an hour: ten a second
    queue = Queue(url, lease=3600)
    beaten, record = threading.Semaphore(0), queue._storage.record_heartbeat

    def beat(trial_id):
        record(trial_id)
        beaten.release()

    lease = claimed(queue)
    monkeypatch.setattr(queue._storage, "record_heartbeat", beat)

    def beats():
        """Whether a beat that begins from now on arrives."""
        while beaten.acquire(blocking=False):
            pass
        return beaten.acquire(timeout=SECONDS) and beaten.acquire(timeout=SECONDS)

    with lease:
        assert beats()
        assert server.cut() > 0
        assert beats()
        assert lease.held(True)
        restart(server)
        assert beats()
        assert lease.held(False)
        assert lease.held(True)
    assert Queue(url).reconcile([ITEM], set, 0)["a"].name == "running"
    assert server.cut() > 0
    lease.done(0.5)
    (one,) = queue.attempts()
    assert (one.state, one.top1) == ("done", 0.5)


def silence(queue):
    with queue._storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("update trial_heartbeats set heartbeat = now() - interval '1 day'"))


def test_workers_of_a_server_that_was_just_restarted_get_time_to_be_heard(server, url, monkeypatch):
    queue, other = Queue(url, lease=3600), Queue(url)
    lease = claimed(queue)
    silence(queue)
    restart(server)
    # The other's own patience saw nothing of it: its first question comes when the server answers again.
    assert other.patient.trouble == -float("inf")
    assert optuna_storage.young(other._storage, 1800)
    assert not optuna_storage.young(other._storage, 0)
    assert other.reconcile([ITEM], set, 0)["a"].name == "running"
    assert lease.held(True)
    monkeypatch.setattr(optuna_storage, "young", lambda *_: False)
    other.patient.trouble = -float("inf")
    assert other.reconcile([ITEM], set, 0)["a"].name == "waiting"
    assert states(other) == ["stale", "waiting"]
    assert not lease.held(True)


# Several at once.


def test_processes_that_open_a_fresh_database_at_once_take_each_attempt_once(server):
    check_race(at(server.url, create(server, "fresh", "template0")), 4, 8)


def test_one_at_a_time_is_alone(url):
    first, second = Queue(url)._storage, Queue(url)._storage
    with optuna_storage.try_alone(first) as one, optuna_storage.try_alone(second) as other:
        assert (one, other) == (True, False)
    with optuna_storage.try_alone(second) as other:
        assert other


def test_other_machines_are_joined_where_a_file_would_be_refused(url, tmp_path):
    workspace = test_joining.of(tmp_path / "results", url)
    there, here = test_joining.bound(workspace), test_joining.queue_of(workspace)
    there._worker = "elsewhere:7"
    work = test_joining.plan(workspace)
    test_joining.joins(workspace, there, work)
    test_joining.begins(there, work)
    assert test_joining.joins(workspace, here, work) == ["Joining elsewhere:7."]
    changed = dataclasses.replace(workspace, replicas=2)
    assert "elsewhere:7 trains it with other code" in test_joining.refused(
        test_joining.joins, changed, here, test_joining.plan(changed)
    )
    other = test_joining.of(tmp_path / "other", url)
    with pytest.raises(StorageError, match="keeps the runs of another results folder") as found:
        membership.bind(other, here)
    check_secret(found.value)


# What is said where it fails.

FORMS = {PASSWORD, urllib.parse.quote(PASSWORD, safe=""), urllib.parse.quote(PASSWORD, safe="{}"),
         PASSWORD.replace("{", "{{").replace("}", "}}"), repr(PASSWORD).strip("'")}  # fmt: skip
# Its parts between what a URL may be cut at.
PARTS = {"c@r", "r%t", "r%25t", "{x}", "%7Bx%7D"}


def check_secret(error):
    """One line without a part of the password, and none in what a traceback of it would show."""
    text = str(error)
    assert "\n" not in text
    shown = "".join(traceback.format_exception(error))
    for part in FORMS | PARTS:
        assert part not in text
    said = [line for line in shown.splitlines() if not line.startswith("    ")]  # but lines of source
    for part in FORMS | PARTS:
        assert not any(part in line for line in said)


@contextlib.contextmanager
def down(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def wrong_password(server, url):
    return url.replace("@127.0.0.1", "y@127.0.0.1"), "password authentication failed for the user"


def wrong_user(server, url):
    return url.replace("//harness:", "//nobody5:"), "password authentication failed for the user"


def wrong_port(server, url):
    return url.replace(f":{server.port}/", ":1/"), "127.0.0.1:1/"


def wrong_database(server, url):
    return at(url, "nosuch"), "nosuch"


@pytest.mark.parametrize("wrong", [wrong_password, wrong_user, wrong_port, wrong_database])
def test_what_is_wrong_with_a_url_is_said_without_its_password(server, wrong, capfd):
    url, words = wrong(server, server.url)
    with pytest.raises(StorageError, match="cannot be opened as an Optuna storage") as found:
        Queue(url)
    assert words in str(found.value)
    check_secret(found.value)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_down_is_named_without_the_password(server, url, monkeypatch, capfd):
    monkeypatch.setattr(Patience, "LONG", 0.0)
    heard = []
    queue = Queue(url, say=heard.append)
    with down(server):
        for ask in (lambda: Queue(url), queue.attempts, lambda: queue.keep("a", 1)):
            with pytest.raises(StorageError) as found:
                ask()
            assert f"127.0.0.1:{server.port}" in str(found.value)
            check_secret(found.value)
        with pytest.raises(StorageError, match="goes on once it answers") as found, optuna_storage.faults_named(url):
            queue._storage.get_all_studies()
        check_secret(found.value)
    assert heard == []
    assert capfd.readouterr() == ("", "")
    queue.keep("a", 2)
    assert queue.note("a") == 2


def test_waiting_for_a_server_is_said_without_the_password(server, url, monkeypatch):
    heard = []
    queue = Queue(url, say=heard.append)
    seconds, up = itertools.count(0.0, 2.0), threading.Event()
    monkeypatch.setattr(optuna_storage.time, "monotonic", lambda: next(seconds))

    def sleeps(_):
        if not up.is_set():
            server.start()
            up.set()

    server.stop()
    monkeypatch.setattr(optuna_storage.time, "sleep", sleeps)
    queue.keep("a", 3)
    assert queue.note("a") == 3
    assert len(heard) == 2
    assert "does not answer" in heard[0]
    assert heard[1].endswith("answers again")
    for line in heard:
        check_secret(StorageError(line))
