"""What is left to run of a stage: tasks, the parts of those that turned out to be large, and those whose worker died.

It knows nothing of who runs them: whoever does takes an item, and tells how it came out.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from wsi_lmc.steps.outcome import Outcome, Split, Stage

_MOST_ROUNDS = 3  # a part that was there can be lost again, to a failing disk, but not for ever
_DEATHS_IN_COMPANY = 2


@runtime_checkable
class Task(Protocol):
    """A picklable unit of work on one slide."""

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        ...

    @property
    def stage(self) -> Stage:
        """Which stage the task belongs to."""
        ...


@dataclass(eq=False)
class Item[T: Task]:
    """A task to be run; ``whole`` is what it is a part of, ``alone`` whether nothing else may run beside it."""

    task: T
    whole: "Item[T] | None" = None
    alone: bool = False
    deaths: int = 0
    parts: int = 0  # that are not through
    rounds: int = 0
    began: float = 0.0  # by whoever runs it, on their clock
    seconds: float = 0.0
    failure: Outcome | None = None


class Agenda[T: Task]:
    """The tasks of a stage, in order; parts go first, so that slides begun are soon done.

    A task whose worker died is tried again. Since a worker that dies takes with it whatever it was doing, a task is
    only blamed for a death when it ran alone, after all others.
    """

    def __init__(self, tasks: Sequence[T]) -> None:
        self._queue = deque(Item(task) for task in tasks)
        self._suspects: deque[Item[T]] = deque()
        self._running = 0

    def take(self) -> Item[T] | None:
        """The next item to run; None where none can be begun now, and for good where none is running."""
        if self._queue:
            item = self._queue.popleft()
        elif self._suspects and not self._running:
            item = self._suspects.popleft()
            item.alone = True
        else:
            return None
        self._running += 1
        return item

    def ended(self, item: Item[T], result: Outcome | Split[T]) -> Outcome | None:
        """Tell how an item came out; gives the outcome of its slide, once there is one."""
        self._running -= 1
        if isinstance(result, Split):
            return self._split(item, result)
        if item.whole is None:
            return replace(result, seconds=result.seconds + item.seconds)
        return self._part_ended(item.whole, result)

    def died(self, item: Item[T]) -> bool:
        """Tell that an item's worker died; whether it is tried again. If not, tell by `ended` what becomes of it."""
        item.deaths += 1
        if item.alone:
            return False
        self._running -= 1
        (self._queue if item.deaths < _DEATHS_IN_COMPANY else self._suspects).append(item)
        return True

    def _split(self, item: Item[T], split: Split[T]) -> Outcome | None:
        item.rounds += 1
        if item.rounds > _MOST_ROUNDS:
            return Outcome(
                item.task.slide_id,
                item.task.stage,
                "failed",
                "io",
                f"parts of this slide were lost {_MOST_ROUNDS} times after they had been written",
                "Check the disk of the run folder, then run the command again.",
            )
        item.parts, item.alone = len(split.parts), False
        self._queue.extendleft(Item(part, item) for part in reversed(split.parts))
        return None

    def _part_ended(self, whole: Item[T], result: Outcome) -> Outcome | None:
        whole.parts -= 1
        whole.seconds += result.seconds
        if result.state == "failed" and whole.failure is None:
            whole.failure = result
            whole.parts -= self._drop_parts(whole)
        if whole.parts:
            return None
        if whole.failure is not None:
            return replace(whole.failure, seconds=whole.seconds)
        self._queue.appendleft(whole)
        return None

    def _drop_parts(self, whole: Item[T]) -> int:
        """Take what was not begun of a slide that has failed off the list; how many parts these were."""
        before = len(self._queue) + len(self._suspects)
        self._queue = deque(item for item in self._queue if item.whole is not whole)
        self._suspects = deque(item for item in self._suspects if item.whole is not whole)
        return before - len(self._queue) - len(self._suspects)
