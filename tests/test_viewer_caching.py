"""What the viewer keeps stays within bounds, and nothing is closed while somebody uses it."""

from threading import Event, Thread

import pytest

from wsi_lmc.viewer.caching import Cache, Shelf


def test_a_cache_keeps_what_was_used_last_up_to_a_weight() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name * 4

    cache: Cache[str, str] = Cache(10, len)
    for name in "aabac":
        assert cache.get(name, lambda name=name: make(name)) == name * 4
    assert made == ["a", "b", "c"]
    cache.get("a", lambda: make("a"))
    assert made == ["a", "b", "c"], "b had to go"
    cache.get("b", lambda: make("b"))
    assert made == ["a", "b", "c", "b"]
    assert len(cache) == 2


def test_what_fails_to_be_made_is_asked_for_again() -> None:
    cache: Cache[str, int] = Cache(10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 2) == 2


def test_a_shelf_closes_the_oldest_that_nobody_uses() -> None:
    closed: list[str] = []
    shelf: Shelf[str, str] = Shelf(2, closed.append)
    with shelf.borrow("a", lambda: "a"):
        for name in "bcd":
            with shelf.borrow(name, lambda name=name: name):
                pass
        assert closed == ["b", "c"], "a is in use"
    with shelf.borrow("e", lambda: "e"):
        pass
    assert closed == ["b", "c", "a"]
    shelf.close()
    assert sorted(closed) == list("abcde")
    assert len(shelf) == 0


def test_one_thread_at_a_time_and_opened_once() -> None:
    shelf: Shelf[str, list[int]] = Shelf(2, lambda _: None)
    opened: list[int] = []
    inside, go_on = Event(), Event()

    def use(wait: bool) -> None:
        with shelf.borrow("a", lambda: opened.append(1) or [0]) as value:
            before = value[0]
            if wait:
                inside.set()
                assert go_on.wait(30)
            value[0] = before + 1

    first = Thread(target=use, args=(True,))
    first.start()
    assert inside.wait(30)
    second = Thread(target=use, args=(False,))
    second.start()
    second.join(0.1)
    assert second.is_alive(), "it waits for the first"
    go_on.set()
    first.join()
    second.join()
    with shelf.borrow("a", lambda: [9]) as value:
        assert value == [2]
    assert opened == [1]


def test_what_cannot_be_opened_leaves_the_shelf_usable() -> None:
    shelf: Shelf[str, str] = Shelf(2, lambda _: None)
    with pytest.raises(ZeroDivisionError), shelf.borrow("a", lambda: str(1 // 0)):
        pass
    with shelf.borrow("a", lambda: "a") as value:
        assert value == "a"
