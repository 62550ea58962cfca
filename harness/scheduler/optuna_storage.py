"""Opens Optuna's relational storage, SQLite or PostgreSQL, so that processes and machines can share it.

SQLite as Optuna opens it hands one waiting trial to several processes, since it ignores `FOR UPDATE`. Here every
transaction begins as a writer's (`BEGIN IMMEDIATE`), so that nothing it has read can change before it writes. Messages
about a storage never contain its credentials.
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
# Users can do nothing about these warnings: that parts of Optuna are experimental, and that heartbeats are meant for
# its own loop. They are silenced once, not around each call, since several threads send heartbeats.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")

# Errors of a storage that does not answer; any other error is a mistake of the caller.
FAULTS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_WAIT = 60.0  # seconds that an SQLite transaction waits for another one
_OPENINGS = 20  # attempts to open: of the processes that create a database's tables at the same time, all but one fail
# Optuna compares heartbeats in the session's time zone, so it has to be the same everywhere. The timeouts limit how
# long a paused worker can hold up the others; the keepalives detect a cut connection.
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
# SQLite's errors for files that waiting does not repair.
_LASTING = ("not a database", "malformed", "readonly")
_FULL = "disk is full"
_ALONE = 60  # seconds that one process may keep others out, since a paused one would otherwise do so for ever
_TRY_LOCK = "select pg_try_advisory_xact_lock(7265730)"

T = TypeVar("T")


class StorageError(HarnessError):
    """A storage that cannot be used; the message is one line without credentials."""


class UnansweredError(StorageError):
    """A storage that does not answer at present, or is full: the same command may succeed later."""

    exit_code = os.EX_TEMPFAIL


def url_of(path: Path) -> str:
    """Returns the URL of an SQLite file."""
    return sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string()


def redacted(url: str) -> str:
    """Returns a storage's URL without its user, password and options."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return "the storage"
    # If the password contains an @ that is not escaped, its end is parsed as the beginning of the host.
    host, database = ((part or "").rpartition("@")[2] for part in (parsed.host, parsed.database))
    return f"{parsed.drivername}://{host}{f':{parsed.port}' if parsed.port else ''}/{database}"


def open_storage(url: str) -> RDBStorage:
    """Opens the Optuna storage at a URL.

    Raises:
      StorageError: it cannot be opened.
    """
    kind, database = parse_url(url)
    try:
        return _sqlite(url, Path(database)) if kind == "sqlite" else _postgres(url)
    except ImportError:
        raise StorageError(
            f"{redacted(url)}: PostgreSQL needs its driver: pip install 'r3d-ablations[postgres]', and a URL that "
            "begins with postgresql+psycopg://"
        ) from None
    except (*FAULTS, RuntimeError, KeyError, ValueError, AssertionError) as error:
        cause = describe_error(error.__cause__ or error, url)
        raise StorageError(f"{redacted(url)}: cannot be opened as an Optuna storage ({cause})") from None


def parse_url(url: str) -> tuple[str, str]:
    """Checks a storage's URL and returns its kind ("sqlite" or "postgresql") and its database.

    Raises:
      StorageError: the URL is malformed, or neither SQLite's nor PostgreSQL's.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(
            "--storage: is no URL; expected postgresql+psycopg://HOST/DATABASE or sqlite:///FILE"
        ) from None
    if "@" in (parsed.host or ""):
        raise StorageError(
            "--storage: an @ in user or password has to be written %40, or the password be given as PGPASSWORD"
        )
    kind = parsed.get_backend_name()
    if parsed.drivername not in _DRIVERS:
        raise StorageError(f"--storage {parsed.drivername}://...: expected postgresql+psycopg://... or sqlite:///FILE")
    if kind == "postgresql" and re.search("[@:/]", parsed.database or ""):
        raise StorageError("--storage: a / or : in user or password has to be written %2F or %3A")
    if kind == "sqlite" and (parsed.database or ":memory:").startswith((":", "file:")):
        raise StorageError("--storage sqlite://: names no file; expected sqlite:///FILE")
    return kind, parsed.database or ""


def _escaped(url: str) -> str:
    return url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL, and would fill in braces


def _sqlite(url: str, path: Path) -> RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)

    with (path.parent / f".{path.name}.lock").open("a") as lock:
        _wait_for(lock)  # two processes that created its tables at the same time would both fail
        storage = RDBStorage(_escaped(url), engine_kwargs={"creator": connect})
    sqlalchemy.event.listen(storage.engine, "begin", _begin_immediate)
    return storage


def _wait_for(lock: TextIO) -> None:
    """Locks a file.

    Raises:
      StorageError: another process holds it for too long; that process may be paused.
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
    for tries_left in reversed(range(_OPENINGS)):
        try:
            return RDBStorage(_escaped(url), engine_kwargs=_POSTGRES)
        except (IntegrityError, ProgrammingError):  # another process created its tables at the same moment
            if not tries_left:
                raise
        except OperationalError as error:
            if not tries_left or "starting up" not in str(error.orig):
                raise
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - spreads the processes out in time, is not a secret
    raise AssertionError("the last opening returns or raises")


def describe_error(error: BaseException, url: str) -> str:
    """Returns an error's text in one line, or only the name of its class if the text would give away a credential."""
    kind = type(error).__name__
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return kind
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    if parsed.username:
        text = text.replace(f'user "{parsed.username}"', "the user")
    secrets = [url, *(str(value) for value in parsed.query.values()), parsed.password, parsed.username]
    if isinstance(error, KeyError | IndexError) or any(_holds(text, str(secret)) for secret in secrets if secret):
        return kind
    return f"{kind}: {text[:200]}"


def _holds(text: str, secret: str) -> bool:
    """Returns whether a text contains a secret; a secret of up to three characters counts only as a whole word."""
    return bool(re.search(re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)", text))


@contextlib.contextmanager
def try_alone(kept: RDBStorage) -> Iterator[bool]:
    """Tries to keep other processes out of this block, for the same storage.

    Yields:
      Whether no other process is in the block; True also if that cannot be told, since nothing depends on it.
    """
    if kept.engine.dialect.name == "postgresql":
        connection, alone = None, True
        try:
            with contextlib.suppress(*FAULTS):
                connection = kept.engine.connect()
                # Released with the transaction, or when the connection ends.
                alone = bool(connection.execute(sqlalchemy.text(_TRY_LOCK)).scalar())
                # Longer than the session's timeout, which is for transactions that hold up other processes' writes.
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
    """Returns whether the database server started less than `seconds` ago; missing heartbeats mean nothing then."""
    if kept.engine.dialect.name != "postgresql":
        return False
    with kept.engine.connect() as connection:
        age = connection.execute(
            sqlalchemy.text("select extract(epoch from now() - pg_postmaster_start_time())")
        ).scalar()
    return float(age or 0.0) < seconds


@contextlib.contextmanager
def faults_named(url: str, what: str = "the storage") -> Iterator[None]:
    """Turns an error of a storage into one that names the storage.

    Raises:
      StorageError: the storage failed.
    """
    try:
        yield
    except FAULTS as error:
        cause = error.__cause__ or error
        raise StorageError(
            f"{redacted(url)}: {what} failed ({describe_error(cause, url)}); records are not lost, the same "
            "command goes on once it answers"
        ) from None


class Patience:
    """Repeats calls to a storage while it does not answer: it restarts, cannot be reached, or its disk is full.

    Args:
      url: URL of the storage.
      say: is called with a line of text, once for each outage, to tell the user that the storage is being waited for.
      asked: returns whether this process was asked to stop; it then waits no longer than `SHORT`.

    Attributes:
      trouble: time of the last call that was not answered, by the monotonic clock.
    """

    LONG, SHORT = 3600.0, 5.0  # seconds

    def __init__(
        self, url: str, say: Callable[[str], None] = lambda _: None, asked: Callable[[], bool] = lambda: False
    ) -> None:
        self._url, self._say, self._asked = url, say, asked
        self.trouble = -float("inf")

    def __call__(self, function: Callable[[], T]) -> T:
        """Calls a function until the storage answers, and returns its result.

        Raises:
          StorageError: the storage is damaged, or the study in it was deleted.
          UnansweredError: the storage has not answered for an hour; or for some seconds, if its disk is full or this
            process was asked to stop.
        """
        began, announced = time.monotonic(), False
        while True:
            try:
                result = function()
            except KeyError:
                raise StorageError(f"{redacted(self._url)}: what it held of this study was deleted meanwhile") from None
            except FAULTS as error:
                self.trouble = time.monotonic()
                waited, cause = self.trouble - began, error.__cause__ or error
                line = f"{redacted(self._url)}: does not answer ({describe_error(cause, self._url)})"
                if any(words in str(cause) for words in _LASTING):
                    raise StorageError(line) from None
                if waited > (self.SHORT if self._asked() or _FULL in str(cause) else self.LONG):
                    raise UnansweredError(line) from None
                if not announced and waited > 1.0:
                    self._say(
                        f"{redacted(self._url)}: does not answer ({describe_error(cause, self._url)}); waiting for it"
                    )
                    announced = True
                time.sleep(random.uniform(0.05, min(2.0, 0.3 + waited)))  # noqa: S311 - as above
            else:
                if announced:
                    self._say(f"{redacted(self._url)}: answers again")
                return result
