"""Opens an existing queue for the commands that only show it or steer it, without creating one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from harness.config.sharing import Sharing
from harness.scheduler import optuna_storage, run_queue, sharing
from harness.scheduler.monitor import START, Group, groups
from harness.scheduler.optuna_storage import StorageError
from harness.scheduler.run_queue import Queue


def open_queue(
    url: str | None, results: Path, watch: bool = False, say: Callable[[str], None] = lambda _: None
) -> Queue:
    """Opens the queue of a storage or of a results folder.

    Args:
      url: URL of the storage; None for the results folder's own queue.
      results: folder of the records.
      watch: whether to wait for a storage that does not answer, rather than to fail after some seconds.
      say: is called with a line of text when the storage has to be waited for.

    Raises:
      StorageError: there is no queue, or it cannot be opened.
    """
    full = sharing.url(Sharing(url), results)
    kind, database = optuna_storage.parse_url(full)
    shown = (
        str(results / sharing.FILE) if url is None else database if kind == "sqlite" else optuna_storage.redacted(full)
    )
    if not (Path(database).is_file() if kind == "sqlite" else True) or not _holds_queue(full, kind, database):
        raise StorageError(
            f"{shown}: nothing was begun here; {START}, or name another place with --results DIR or --storage URL"
        )
    return Queue(full, say=say, asked=lambda: not watch)


def look(queue: Queue) -> tuple[Group, ...]:
    """Returns the current state of all studies, after ending the attempts whose workers fell silent."""
    queue.find_stale()
    attempts = queue.attempts()
    return groups(queue.notes(), attempts)


def _holds_queue(url: str, kind: str, database: str) -> bool:
    """Returns whether an existing database holds a queue, without Optuna, which would create its tables in it."""

    def connect() -> sqlite3.Connection:
        # Not read-only: a transaction that a killed process left half-written has to be rolled back before reading.
        return sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=rw", timeout=60.0, uri=True)

    try:
        if kind == "sqlite":
            engine = sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=sqlalchemy.NullPool)
        else:
            engine = sqlalchemy.create_engine(
                url, connect_args={"connect_timeout": 5}, poolclass=sqlalchemy.NullPool, hide_parameters=True
            )
        if not sqlalchemy.inspect(engine).has_table("studies"):
            return False
        with engine.connect() as connection:
            named = sqlalchemy.text("select count(*) from studies where study_name = :name")
            return bool(connection.execute(named, {"name": run_queue.NAME}).scalar())
    except ImportError:
        return True  # opening it creates nothing without the driver either, and its error names the missing driver
    except SQLAlchemyError as error:
        mend = (
            "remove it once nobody trains with it: the records do not need it"
            if kind == "sqlite"
            else "look again once its server answers, or name another with --storage URL"
        )
        raise StorageError(
            f"{optuna_storage.redacted(url)}: cannot be looked at ({optuna_storage.describe_error(error, url)}); {mend}"
        ) from None
