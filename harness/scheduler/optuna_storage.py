"""Optuna's relational storage, opened so that processes, and machines, can share it: SQLite or PostgreSQL.

SQLite as Optuna opens it hands one waiting trial to several processes, since it ignores `FOR UPDATE`. Here every
transaction begins as a writer's (`BEGIN IMMEDIATE`), so that what it read still holds when it writes. Nothing that is
said of a storage repeats its credentials.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from harness.system.errors import HarnessError

optuna.logging.set_verbosity(optuna.logging.ERROR)
# No user's to heed: what is experimental of Optuna, and that heartbeats are meant for its own loop. Set once and not
# around each call, since threads beat.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")

# What a storage raises where it does not answer; all else is a mistake of the caller's.
FAULTS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_WAIT = 60.0  # seconds that a transaction of SQLite waits for another's
_OPENINGS = 20  # processes that make one database's tables at the same time fail all but one
# Heartbeats are compared in the session's time zone: it has to be the same everywhere. A paused worker must not hold up
# the others for longer than the timeouts, and a cut connection is noticed.
_SESSION = (
    "-c timezone=UTC -c lock_timeout=10s -c statement_timeout=30s -c idle_in_transaction_session_timeout=10s "
    "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
_POSTGRES = {
    "pool_pre_ping": True,
    "pool_size": 2,
    "connect_args": {
        "connect_timeout": 5,
        "options": _SESSION,
        "keepalives_idle": 20,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15000,
    },
}

_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
# What SQLite says of a file that no waiting mends.
_LASTING = ("not a database", "malformed", "readonly")
_FULL = "disk is full"
_ALONE = 60  # seconds that one process may keep others out; one that is paused or gone would for ever
_TRY_LOCK = "select pg_try_advisory_xact_lock(7265730)"

T = TypeVar("T")


class StorageError(HarnessError):
    """A storage that cannot be used, in one line; credentials are not repeated."""


class UnansweredError(StorageError):
    """One that does not answer at present, or is full: whoever is started again may find it well."""

    exit_code = os.EX_TEMPFAIL


def url_of(path: Path) -> str:
    """URL of an SQLite file."""
    return sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string()


def shown(url: str) -> str:
    """A storage's URL without its user, password and options."""
    try:
        made = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return "the storage"
    # Of a password with an @ that is not escaped, the end is read as the beginning of the host.
    host, database = ((part or "").rpartition("@")[2] for part in (made.host, made.database))
    return f"{made.drivername}://{host}{f':{made.port}' if made.port else ''}/{database}"


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage behind a URL.

    Raises:
      StorageError: it cannot be opened.
    """
    kind, database = checked(url)
    try:
        return _sqlite(url, Path(database)) if kind == "sqlite" else _postgres(url)
    except ImportError:
        raise StorageError(
            f"{shown(url)}: PostgreSQL needs its driver: pip install 'r3d-ablations[postgres]', and a URL that begins "
            "with postgresql+psycopg://"
        ) from None
    except (*FAULTS, RuntimeError, KeyError, ValueError, AssertionError) as error:
        cause = said(error.__cause__ or error, url)
        raise StorageError(f"{shown(url)}: cannot be opened as an Optuna storage ({cause})") from None


def checked(url: str) -> tuple[str, str]:
    """Kind and database of a URL that is well formed.

    Raises:
      StorageError: it is not, or neither SQLite's nor PostgreSQL's.
    """
    try:
        made = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(
            "--storage: is no URL; expected postgresql+psycopg://HOST/DATABASE or sqlite:///FILE"
        ) from None
    if "@" in (made.host or ""):
        raise StorageError(
            "--storage: an @ in user or password has to be written %40, or the password be given as PGPASSWORD"
        )
    kind = made.get_backend_name()
    if made.drivername not in _DRIVERS:
        raise StorageError(f"--storage {made.drivername}://...: expected postgresql+psycopg://... or sqlite:///FILE")
    if kind == "postgresql" and re.search("[@:/]", made.database or ""):
        raise StorageError("--storage: a / or : in user or password has to be written %2F or %3A")
    if kind == "sqlite" and (made.database or ":memory:").startswith((":", "file:")):
        raise StorageError("--storage sqlite://: names no file; expected sqlite:///FILE")
    return kind, made.database or ""


def _escaped(url: str) -> str:
    return url.replace("{", "{{").replace("}", "}}")  # Optuna fills in braces


def _sqlite(url: str, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)

    with (path.parent / f".{path.name}.lock").open("a") as lock:
        _wait_for(lock)  # two processes that made its tables at once would both fail
        storage = RDBStorage(_escaped(url), engine_kwargs={"creator": connect})
    sqlalchemy.event.listen(storage.engine, "begin", _begin_immediate)
    return storage


def _wait_for(lock: TextIO) -> None:
    """Locks a file.

    Raises:
      StorageError: another process holds it for too long; it may be stopped.
    """
    end = time.monotonic() + _WAIT
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise StorageError(
                    f"{lock.name}: another process has held it for {_WAIT:.0f} s; is it paused?"
                ) from None
            time.sleep(0.05)


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres(url: str) -> RDBStorage:
    for left in reversed(range(_OPENINGS)):
        try:
            return RDBStorage(_escaped(url), engine_kwargs=_POSTGRES)
        except (IntegrityError, ProgrammingError):  # another process made its tables just then
            if not left:
                raise
        except OperationalError as error:
            if not left or "starting up" not in str(error.orig):
                raise
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - to be apart from others, not to be a secret
    raise AssertionError("the last opening returns or raises")


def said(error: BaseException, url: str) -> str:
    """What an error says, in one line, nothing of which is a credential; its kind alone where it would be."""
    kind = type(error).__name__
    try:
        made = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return kind
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    if made.username:
        text = text.replace(f'user "{made.username}"', "the user")
    secrets = [url, *(str(value) for value in made.query.values()), made.password, made.username]
    if isinstance(error, KeyError | IndexError) or any(_holds(text, str(one)) for one in secrets if one):
        return kind
    return f"{kind}: {text[:200]}"


def _holds(text: str, secret: str) -> bool:
    """Whether a text gives a secret away; of one so short that any text holds it, as a word."""
    return bool(re.search(re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)", text))


@contextlib.contextmanager
def try_alone(kept: RDBStorage) -> Iterator[bool]:
    """Whether no other process is in here with this storage; it is a courtesy, and yields True where it cannot tell."""
    if kept.engine.dialect.name == "postgresql":
        connection, alone = None, True
        try:
            with contextlib.suppress(*FAULTS):
                connection = kept.engine.connect()
                # Let go with the transaction, or when the connection ends.
                alone = bool(connection.execute(sqlalchemy.text(_TRY_LOCK)).scalar())
                # Longer than the session's own, which is for what holds up others' writes.
                connection.execute(sqlalchemy.text(f"set local idle_in_transaction_session_timeout = '{_ALONE}s'"))
            yield alone
        finally:
            if connection is not None:
                with contextlib.suppress(*FAULTS):
                    connection.close()
        return
    path = Path(kept.engine.url.database or "")
    with (path.parent / f".{path.name}.alone").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def young(kept: RDBStorage, seconds: float) -> bool:
    """Whether a server was started less than so many seconds ago: nobody's silence says anything yet."""
    if kept.engine.dialect.name != "postgresql":
        return False
    with kept.engine.connect() as connection:
        age = connection.execute(
            sqlalchemy.text("select extract(epoch from now() - pg_postmaster_start_time())")
        ).scalar()
    return float(age or 0.0) < seconds


@contextlib.contextmanager
def faults_named(url: str, what: str = "the storage") -> Iterator[None]:
    """Says which storage it is that fails.

    Raises:
      StorageError: the storage failed.
    """
    try:
        yield
    except FAULTS as error:
        cause = error.__cause__ or error
        raise StorageError(
            f"{shown(url)}: {what} failed ({said(cause, url)}); records are not lost, the same command goes on once it "
            "answers"
        ) from None


class Patience:
    """Asks a storage again while it does not answer: restarted, unreachable, its disk full.

    Args:
      url: of the storage.
      say: is told, once for each time of silence, that it is waited for.
      asked: whether somebody asked this process to stop, which then waits no longer than `SHORT`.

    Attributes:
      trouble: when it last did not answer, of the monotonic clock.
    """

    LONG, SHORT = 3600.0, 5.0  # seconds

    def __init__(
        self, url: str, say: Callable[[str], None] = lambda _: None, asked: Callable[[], bool] = lambda: False
    ) -> None:
        self._url, self._say, self._asked = url, say, asked
        self.trouble = -float("inf")

    def __call__(self, function: Callable[[], T]) -> T:
        """What a function returns, once the storage answers.

        Raises:
          StorageError: it is damaged, or what it held was deleted.
          UnansweredError: it does not answer for an hour, or for some seconds while it is full or this process was
            asked to stop.
        """
        began, told = time.monotonic(), False
        while True:
            try:
                result = function()
            except KeyError:
                raise StorageError(f"{shown(self._url)}: what it held of this study was deleted meanwhile") from None
            except FAULTS as error:
                self.trouble = time.monotonic()
                waited, cause = self.trouble - began, error.__cause__ or error
                line = f"{shown(self._url)}: does not answer ({said(cause, self._url)})"
                if any(words in str(cause) for words in _LASTING):
                    raise StorageError(line) from None
                if waited > (self.SHORT if self._asked() or _FULL in str(cause) else self.LONG):
                    raise UnansweredError(line) from None
                if not told and waited > 1.0:
                    self._say(f"{shown(self._url)}: does not answer ({said(cause, self._url)}); waiting for it")
                    told = True
                time.sleep(random.uniform(0.05, min(2.0, 0.3 + waited)))  # noqa: S311 - as above
            else:
                if told:
                    self._say(f"{shown(self._url)}: answers again")
                return result
