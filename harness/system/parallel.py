"""Does several pieces of work in parallel, in as many forked processes as there are cores, or in threads.

Threads are for work that mostly waits for a network. If no process can be forked, the work is done one piece after the
other.
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
# Number of threads that wait for a network side by side.
_THREADS = 16

# In a forked process: all the work, as it was when the process began; the process is told by number which piece to do.
_inherited: list[Sequence[Callable[[], Any]]] = []


def begin(work: Sequence[Callable[[], T]], threads: bool = False) -> Callable[[], list[T]]:
    """Begins pieces of work in other processes, which see the memory of this one as it is now.

    Args:
      work: functions; each is called once and must not change anything. Their results and errors must be picklable.
      threads: whether to use threads, for work that waits for a network.

    Returns:
      A function that waits for all pieces and returns their results in the order of `work`, or raises their error.
    """
    if threads:
        return _begin_in_threads(work)
    pool = _pool(work)
    if pool is None:
        return lambda: [piece() for piece in work]
    try:
        futures = [pool.submit(_piece, number) for number in range(len(work))]
    except OSError:  # the system cannot start another process
        pool.shutdown()
        return lambda: [piece() for piece in work]

    def wait() -> list[T]:
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:  # the system killed a process, perhaps for its memory
            return [piece() for piece in work]
        finally:
            pool.shutdown(cancel_futures=True)

    return wait


def _begin_in_threads(work: Sequence[Callable[[], T]]) -> Callable[[], list[T]]:
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    futures = [pool.submit(piece) for piece in work]
    pool.shutdown(wait=False)
    return lambda: [future.result() for future in futures]


def each(work: Sequence[Callable[[], T]]) -> list[T]:
    """Does pieces of work in parallel, as :func:`begin` does, and returns their results in order."""
    return begin(work)()


def parts(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Splits items into parts of at most `most` items."""
    return (items[start : start + most] for start in range(0, len(items), most))


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Turns off garbage collection, which takes long and finds nothing while a great many lasting objects are made."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _pool(work: Sequence[Any]) -> concurrent.futures.ProcessPoolExecutor | None:
    """Returns a pool of processes for the work; None if one process is as good, or this one cannot be forked safely."""
    processes = min(len(work), _cores())
    # A fork copies only the current thread: a lock that another thread held would stay locked for ever.
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    if processes < 2 or not alone or not sys.platform.startswith("linux"):
        return None
    context = multiprocessing.get_context("fork")
    return concurrent.futures.ProcessPoolExecutor(processes, context, _inherit, (work,))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inherit(work: Sequence[Callable[[], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C, and ends its children
    gc.freeze()
    _inherited[:] = [work]


def _piece(number: int) -> Any:
    with without_collecting():
        return _inherited[0][number]()
