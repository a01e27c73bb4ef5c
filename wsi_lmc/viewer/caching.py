"""What the viewer keeps at hand, within bounds: things by their weight, and open things that may be in use."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock


class Cache[K: Hashable, V]:
    """Values up to a weight in all; those used last stay. For several threads."""

    def __init__(self, most: int, weight: Callable[[V], int]) -> None:
        self._most, self._weight, self._total = most, weight, 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made where it is not there. Two threads that ask at once may both make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._weight(value)
            while self._total > self._most and len(self._values) > 1:
                self._total -= self._weight(self._values.popitem(last=False)[1])
        return value

    def __len__(self) -> int:
        return len(self._values)


@dataclass
class _Held[V]:
    """An open thing, or the room for it; ``lock`` is held by whoever uses it."""

    lock: Lock = field(default_factory=Lock)
    users: int = 0
    value: V | None = None


class Shelf[K: Hashable, V]:
    """Open things, ``most`` of them (and those in use), each for one thread at a time; the rest get closed."""

    def __init__(self, most: int, close: Callable[[V], None]) -> None:
        self._most, self._close = most, close
        self._held: OrderedDict[K, _Held[V]] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def borrow(self, key: K, make: Callable[[], V]) -> Iterator[V]:
        """The open thing of a key, opened where it is not, for this thread alone while the context lasts."""
        with self._lock:
            held = self._held.setdefault(key, _Held())
            self._held.move_to_end(key)
            held.users += 1
        try:
            with held.lock:
                if held.value is None:
                    held.value = make()
                yield held.value
        finally:
            with self._lock:
                held.users -= 1
            self._shrink(self._most)

    def close(self) -> None:
        """Close all that nobody is using."""
        self._shrink(0)

    def __len__(self) -> int:
        return len(self._held)

    def _shrink(self, most: int) -> None:
        with self._lock:
            idle = [key for key, held in self._held.items() if not held.users]
            gone = [self._held.pop(key) for key in idle[: max(0, len(self._held) - most)]]
        for held in gone:
            if held.value is not None:
                self._close(held.value)
