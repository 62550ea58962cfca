"""Storages that cannot be used, or do not answer: one line each, and no part of a secret in it."""

import sqlite3
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from harness.cli import options
from harness.scheduler import optuna_storage
from harness.scheduler.optuna_storage import Patience, StorageError, UnansweredError

SECRET = "s3cr3tpart"
HOST = "127.0.0.1:1/postgres"


@pytest.mark.parametrize(
    "url",
    [
        *(f"postgresql+psycopg://harness:{p}{SECRET}@{HOST}" for p in ("", "a/", "a@", "a:", "a#", "a?", "{", "%zz")),
        f"postgresql+psycopg://harness:{{{SECRET}}}@{HOST}",
        f"postgre://harness:{SECRET}@{HOST}",
        f"harness:{SECRET}@{HOST}",
        f"postgresql+psycopg://harness:{SECRET}@127.0.0.1:abc/postgres",
        f"postgresql+psycopg://harness@{HOST}?password={SECRET}",
        f"postgresql+psycopg://harness:{SECRET}@{HOST}?pasword={SECRET}",
        f"host=127.0.0.1 password={SECRET} user=harness",
    ],
)
def test_wrong_urls_are_refused_in_one_line_without_their_secret(url):
    with pytest.raises(StorageError) as found:
        optuna_storage.open_storage(url)
    assert SECRET not in str(found.value)
    assert SECRET not in optuna_storage.redacted(url)
    assert "\n" not in str(found.value)


def test_said_keeps_words_whole_or_says_nothing():
    error = ValueError("failed to import access")
    assert optuna_storage.describe_error(error, "postgresql+psycopg://a:b@h/d") == "ValueError: failed to import access"
    assert optuna_storage.describe_error(error, "postgresql+psycopg://h/d") == "ValueError: failed to import access"
    assert optuna_storage.describe_error(error, "postgresql+psycopg://a:to@h/d") == "ValueError"
    assert optuna_storage.describe_error(error, "postgresql+psycopg://a:impo@h/d") == "ValueError"


def test_braces_in_the_name_of_a_file(tmp_path):
    optuna_storage.open_storage(optuna_storage.url_of(tmp_path / "a{b}.db"))
    assert (tmp_path / "a{b}.db").is_file()


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(optuna_storage.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(optuna_storage.time, "sleep", lambda seconds: setattr(now, "seconds", now.seconds + seconds))
    return now


def fails(words):
    def function():
        raise OperationalError("", {}, sqlite3.OperationalError(words))

    return function


@pytest.mark.parametrize(("asked", "limit"), [(False, Patience.LONG), (True, Patience.SHORT)])
def test_patience_ends(clock, asked, limit):
    said = []
    with pytest.raises(StorageError, match="does not answer"):
        Patience("sqlite:///a", said.append, lambda: asked)(fails("disk I/O error"))
    assert limit < clock.seconds < limit + 3
    assert len(said) == 1


def test_patience_goes_on_once_it_answers(clock):
    said = []
    patient = Patience("sqlite:///a", said.append)
    assert patient(lambda: 1 if clock.seconds > 10 else fails("locked")()) == 1
    assert 0 < patient.trouble <= 10
    assert [("answers again" in line) for line in said] == [False, True]


def test_a_full_disk_is_not_waited_for_for_an_hour(clock):
    with pytest.raises(UnansweredError, match="does not answer"):
        Patience("sqlite:///a")(fails("database or disk is full"))
    assert Patience.SHORT < clock.seconds < Patience.SHORT + 3


@pytest.mark.parametrize(("error", "code"), [(StorageError("a"), 2), (UnansweredError("a"), 75)])
def test_what_may_be_well_later_asks_the_scheduler(error, code):
    @options.one_line_errors
    def command():
        raise error

    with pytest.raises(options.Mistake) as found:
        command()
    assert (found.value.message, found.value.exit_code) == ("a", code)


@pytest.mark.parametrize("words", ["file is not a database", "disk image is malformed", "attempt to write a readonly"])
def test_lasting_faults_are_raised_at_once(clock, words):
    with pytest.raises(StorageError):
        Patience("sqlite:///a")(fails(words))
    assert clock.seconds == 0
