"""Threads: every item once, results in order, errors after all parts have ended."""

import os
import threading
import time

import psutil
import pytest

from wsi_lmc.threads import Pending, Threads, available_cores, in_turn, threads_of_process


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 64, 1001])
def test_every_item_is_worked_on_once_and_in_order(count: int, items: int) -> None:
    with Threads(count) as threads:
        parts = threads.each(list, items)
    assert [item for part in parts for item in part] == list(range(items))


def test_several_threads_really_work() -> None:
    names: set[str] = set()

    def work(part: range) -> None:
        names.add(threading.current_thread().name)
        time.sleep(0.02)

    with Threads(3) as threads:
        threads.each(work, 12)
    assert len(names) == 3
    names.clear()
    Threads().each(work, 2)
    assert names == {threading.current_thread().name}


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_gets_through_when_nothing_is_running_any_more(count: int) -> None:
    running: list[int] = []

    def work(part: range) -> None:
        running.append(1)
        if 0 in part:
            raise ValueError("first")
        time.sleep(0.05)
        running.pop()

    with Threads(count) as threads, pytest.raises(ValueError, match="first"):
        threads.each(work, 9)
    assert running == [1]


def test_the_environment_says_how_many_cores_a_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (psutil.cpu_count() or 1)
    for text, expected in (("3", 3), ("", available_cores()), ("0", available_cores()), ("many", available_cores())):
        monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", text)
        assert threads_of_process() == expected


@pytest.mark.parametrize(("count", "ahead"), [(1, 0), (2, 1), (2, 3), (1, 5)])
def test_works_in_turn_are_begun_ahead_and_end_in_order(count: int, ahead: int) -> None:
    begun: list[int] = []
    with Threads(count) as threads:

        def begin(number: int) -> Pending[int]:
            begun.append(number)
            return threads.begin(len, number).then(sum)

        results = in_turn(begin, 7, ahead)
        assert next(results) == 0
        assert begun == list(range(min(7, ahead + 1)))
        assert list(results) == list(range(1, 7))
    assert begun == list(range(7))


def test_works_that_nobody_waits_for_have_ended_when_their_caller_goes_on() -> None:
    running: list[int] = []

    def work(part: range) -> None:
        running.append(1)
        time.sleep(0.05)
        running.pop()

    with Threads(2) as threads:
        results = in_turn(lambda _: threads.begin(work, 4), 9, 2)
        next(results)
        results.close()
        assert not running
