"""Commands as a user starts them, each in a process of its own; :mod:`tests.support.forked` forks it instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

# What starts a command, given its module and its arguments: something like a :class:`subprocess.Popen`.
Starts = Callable[[str, Sequence[object]], Any]
# What runs it to its end: its exit code, minus the number of the signal that ended it, and what it printed.
Runs = Callable[[str, Sequence[object]], tuple[int | None, str]]


def start(module: str, words: Sequence[object]) -> subprocess.Popen[str]:
    """Starts a command; its outputs and errors come together."""
    command = [sys.executable, "-u", "-m", module, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(module: str, words: Sequence[object]) -> tuple[int, str]:
    """Runs a command to its end."""
    process = start(module, words)
    said, _ = process.communicate()
    return process.returncode, said
