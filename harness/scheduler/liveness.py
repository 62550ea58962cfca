"""Tells whether a worker process of this machine is still alive, by a file lock that it holds.

The system releases the lock however the process ends. So a run whose worker was killed on this machine is free at once;
that a worker on another machine has ended shows only in its missing heartbeats.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Changes each time a machine starts: tokens of other machines, or from before the last start, cannot be judged.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TOKEN = re.compile(r"[0-9a-f]{32}")


@contextlib.contextmanager
def present() -> Iterator[str]:
    """Holds a lock for as long as this process lives.

    Yields:
      The lock's token, 32 hexadecimal digits; empty if no lock can be held.
    """
    with contextlib.ExitStack() as held:
        token = ""
        with contextlib.suppress(OSError):
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            token = _hold(folder, held) if _ours(folder) else ""
        yield token
        # Only without an error: after one, the lock file stays behind, so that others find that the process has ended,
        # since it may not have told the queue what became of its run.
        if token:
            (_folder() / token).unlink(missing_ok=True)


def _hold(folder: Path, held: contextlib.ExitStack) -> str:
    token = f"{_boot()}{secrets.token_hex(8)}"
    path = folder / token
    file = held.enter_context(path.open("x"))
    fcntl.flock(file, fcntl.LOCK_EX)
    return token


def gone(token: str) -> bool:
    """Returns whether the process of a token ran on this machine and has ended; False if that cannot be known."""
    if not (_TOKEN.fullmatch(token) and token.startswith(_boot())):
        return False
    try:
        folder = _folder()
        file = os.open(folder / token, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) if _ours(folder) else None
    except OSError:  # the process ended in order and removed its file, or the token is another user's
        return False
    if file is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # the process still holds the lock
        return False
    finally:
        os.close(file)
    return True


def _boot() -> str:
    """Returns the id of the machine's last start, 16 hexadecimal digits; zeros if the system has none."""
    try:
        return _BOOT.read_text().replace("-", "")[:16]
    except OSError:  # not Linux
        return "0" * 16


def _folder() -> Path:
    """Returns this user's folder of lock files."""
    return Path(tempfile.gettempdir()) / f"r3d-ablations-{os.getuid()}"


def _ours(folder: Path) -> bool:
    """Returns whether a folder belongs to this user and no one else can write to it; anybody could have created it."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
