"""Several pieces of work at once: in forked processes, as many as there are cores; elsewhere one after the other.

Work that mostly waits for a network is done in threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

T = TypeVar("T")
# That wait for a network side by side.
_THREADS = 16

# What a forked process found when it began: the work, of which it is told by number what to do.
_inherited: list[Sequence[Callable[[], Any]]] = []


def begin(work: Sequence[Callable[[], T]], threads: bool = False) -> Callable[[], list[T]]:
    """Begins pieces of work in processes of their own, which see everything as it is now.

    Args:
      work: each is called once, and changes nothing; what it returns, or raises, must be picklable.
      threads: whether it waits for a network, and is done in threads.

    Returns:
      Waits for all of it: what each piece returned, in their order. What one raised, it raises.
    """
    if threads:
        return _begin_in_threads(work)
    pool = _pool(work)
    if pool is None:
        return lambda: [piece() for piece in work]
    try:
        begun = [pool.submit(_piece, number) for number in range(len(work))]
    except OSError:  # no room for another process
        pool.shutdown()
        return lambda: [piece() for piece in work]

    def wait() -> list[T]:
        try:
            return [one.result() for one in begun]
        except BrokenProcessPool:  # the system ended a process, for its memory perhaps
            return [piece() for piece in work]
        finally:
            pool.shutdown(cancel_futures=True)

    return wait


def _begin_in_threads(work: Sequence[Callable[[], T]]) -> Callable[[], list[T]]:
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    begun = [pool.submit(piece) for piece in work]
    pool.shutdown(wait=False)
    return lambda: [one.result() for one in begun]


def each(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece of work returns, in their order; arguments as of :func:`begin`."""
    return begin(work)()


def parts(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Items in parts of at most so many."""
    return (items[place : place + most] for place in range(0, len(items), most))


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Puts off looking for cycles of garbage: where a great many objects come to stay, it looks in vain, for long."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _pool(work: Sequence[Any]) -> concurrent.futures.ProcessPoolExecutor | None:
    """Processes for the work; None where one alone does it as well, or this one cannot be forked safely."""
    processes = min(len(work), _cores())
    # A fork copies one thread alone: a lock that another held would stay shut for ever.
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    if processes < 2 or not alone or not sys.platform.startswith("linux"):
        return None
    context = multiprocessing.get_context("fork")
    return concurrent.futures.ProcessPoolExecutor(processes, context, _inherit, (work,))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inherit(work: Sequence[Callable[[], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked is told, and ends the others
    gc.freeze()
    _inherited[:] = [work]


def _piece(number: int) -> Any:
    with without_collecting():
        return _inherited[0][number]()
