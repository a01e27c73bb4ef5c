"""Threads: every item once, results in order, errors after all parts have ended."""

import os
import threading
import time

import psutil
import pytest

from wsi_lmc.threads import Threads, available_cores, threads_of_process


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
