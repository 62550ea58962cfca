"""Opens the queue for those that only look at it, or steer it: nothing is made by looking."""

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
    """The queue behind --storage, or of a results folder.

    Args:
      url: of the storage; None for the results folder's own.
      results: folder of the records.
      watch: wait for a storage that does not answer; else say so after some seconds.
      say: is told where it is waited for.

    Raises:
      StorageError: nothing was begun there, or it cannot be opened.
    """
    full = sharing.url(Sharing(url), results)
    kind, database = optuna_storage.checked(full)
    shown = str(results / sharing.FILE) if url is None else database if kind == "sqlite" else optuna_storage.shown(full)
    if not (Path(database).is_file() if kind == "sqlite" else True) or not _holds_queue(full, kind, database):
        raise StorageError(
            f"{shown}: nothing was begun here; {START}, or name another place with --results DIR or --storage URL"
        )
    return Queue(full, say=say, asked=lambda: not watch)


def look(queue: Queue) -> tuple[Group, ...]:
    """Where everything stands now, once those that fell silent were found."""
    queue.find_stale()
    attempts = queue.attempts()
    return groups(queue.notes(), attempts)


def _holds_queue(url: str, kind: str, database: str) -> bool:
    """Whether a database that is there holds the queue; Optuna would make its tables by opening it."""

    def connect() -> sqlite3.Connection:
        # Not read-only: what a process that was killed left half-written has to be rolled back before it is read.
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
        return True  # without its driver nothing is made either, and opening it says which is missing
    except SQLAlchemyError as error:
        mend = (
            "remove it once nobody trains with it: the records do not need it"
            if kind == "sqlite"
            else "look again once its server answers, or name another with --storage URL"
        )
        raise StorageError(
            f"{optuna_storage.shown(url)}: cannot be looked at ({optuna_storage.said(error, url)}); {mend}"
        ) from None
