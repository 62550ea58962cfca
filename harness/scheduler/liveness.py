"""Whether a worker of this machine is still alive: it holds a lock, which the system lets go when it ends, however.

So a run whose worker was killed here is free at once; of another machine's worker only its silence can tell.
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

# Of the machine since it was started: tokens of others, and of before, say nothing.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TOKEN = re.compile(r"[0-9a-f]{32}")


@contextlib.contextmanager
def present() -> Iterator[str]:
    """A token that is this process's until it ends, 32 hexadecimal digits; empty where no lock can be held."""
    with contextlib.ExitStack() as held:
        token = ""
        with contextlib.suppress(OSError):
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            token = _hold(folder, held) if _ours(folder) else ""
        yield token
        if token:  # left behind by an error, with which it may not have told what became of its run
            (_folder() / token).unlink(missing_ok=True)


def _hold(folder: Path, held: contextlib.ExitStack) -> str:
    token = f"{_boot()}{secrets.token_hex(8)}"
    path = folder / token
    file = held.enter_context(path.open("x"))
    fcntl.flock(file, fcntl.LOCK_EX)
    return token


def gone(token: str) -> bool:
    """Whether a token's process was one of this machine and has ended; False where that cannot be known."""
    if not (_TOKEN.fullmatch(token) and token.startswith(_boot())):
        return False
    try:
        folder = _folder()
        file = os.open(folder / token, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) if _ours(folder) else None
    except OSError:  # ended and told so, or another's
        return False
    if file is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held
        return False
    finally:
        os.close(file)
    return True


def _boot() -> str:
    """16 hexadecimal digits."""
    try:
        return _BOOT.read_text().replace("-", "")[:16]
    except OSError:  # no Linux
        return "0" * 16


def _folder() -> Path:
    """Of the locks: this user's."""
    return Path(tempfile.gettempdir()) / f"r3d-ablations-{os.getuid()}"


def _ours(folder: Path) -> bool:
    """Whether a folder that anybody could have made is this user's own."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
