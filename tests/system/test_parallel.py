"""Work done in several processes comes to what one would have made of it."""

import concurrent.futures
import functools
import os
import threading

import pytest

from harness.system import parallel


@pytest.fixture(params=["several", "one"])
def processes(request, monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 2 if request.param == "several" else 1)
    monkeypatch.delitem(parallel.sys.modules, "tensorflow", raising=False)
    return request.param


def test_results_come_in_their_order(processes):
    closures = [(lambda number=number: (number, os.getpid())) for number in range(20)]  # no pickle could hold these
    found = parallel.each(closures)
    assert [number for number, _ in found] == list(range(20))
    # The process of a test has threads of its own under some runners: then it is not forked.
    alone = threading.active_count() == 1
    assert ({pid for _, pid in found} != {os.getpid()}) == (processes == "several" and alone)


def test_an_error_is_the_first_ones_own(processes):
    with pytest.raises(ValueError, match="x1"):
        parallel.each([dict, functools.partial(fail, "x1"), functools.partial(fail, "x2")])


def fail(text):
    raise ValueError(text)


def test_a_process_that_is_killed_is_stood_in_for(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    own = os.getpid()
    work = [lambda: 1, lambda: os.getpid() == own or os._exit(9)]
    assert parallel.each(work) == [1, True]


def test_nothing_to_do():
    assert parallel.each([]) == []
    assert list(parallel.parts([], 3)) == []
    assert list(parallel.parts([1, 2, 3, 4], 3)) == [[1, 2, 3], [4]]


def test_a_process_with_threads_is_not_forked(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        other.submit(dict).result()
        assert set(parallel.each([os.getpid, os.getpid])) == {os.getpid()}
