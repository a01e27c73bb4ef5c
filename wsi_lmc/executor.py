"""Running steps, and turning what they raise into outcomes: the contract of all executors, and the one without workers.

This is the one place where an exception of a step becomes a value.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from wsi_lmc.errors import SlideCode, SlideError, StoreError, UsageError
from wsi_lmc.passing import is_full, may_pass
from wsi_lmc.steps.agenda import Agenda, Task
from wsi_lmc.steps.outcome import Outcome, Split

_PAUSES_S = (1.0, 5.0)

type Step[T] = Callable[[T], Outcome | Split[T]]


@runtime_checkable
class Executor(Protocol):
    """Runs steps; used as a context manager."""

    def run[T: Task](self, step: Step[T], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """Yield one outcome a task, in whatever order they come; no exception of a step gets through.

        A step may split its task: then the parts are run, by whoever is free, and the task once more after them.
        ``on_gpu`` keeps tasks on workers with the resource "GPU", and leaves them those with "CPU", where there are.
        """
        ...

    def has_gpu(self) -> bool:
        """Whether there is a worker with the resource "GPU"."""
        ...

    def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one long function on a worker with the resource "GPU", or in this process where there is none."""
        ...

    def __enter__(self) -> "Executor": ...

    def __exit__(self, *error: object) -> None: ...


def attempt[T: Task](step: Step[T], task: T) -> Outcome | Split[T]:
    """Run a step and turn whatever it raises into a failed outcome: one bad slide never stops a run.

    Where a disk or a network failed in a way that may pass, the step begins anew, with every file opened again, up to
    three times in all. What was published is found there.
    """
    for pause_s in _PAUSES_S:
        try:
            return step(task)
        except Exception as error:  # noqa: BLE001  looked at next
            if not may_pass(error):
                return _outcome_of(task, error)
        time.sleep(pause_s)
    try:
        return step(task)
    except Exception as error:  # noqa: BLE001  the single place where an error becomes a slide's outcome
        return _outcome_of(task, error)


def _outcome_of(task: Task, error: Exception) -> Outcome:
    """What an exception of a step means for its slide."""
    if is_full(error):
        return failed(task, "disk_full", str(error), "Make room, then run the command again: it goes on from here.")
    if may_pass(error):
        return failed(task, "io", str(error), "Check the disk and the network, then run 'wsi-lmc retry-failed'.")
    if isinstance(error, SlideError):
        return failed(task, error.code, f"{error.found}; expected {error.expected}", error.remedy)
    if isinstance(error, StoreError):
        return failed(task, "store", f"{error.found}; expected {error.expected}", error.remedy)
    if isinstance(error, UsageError):
        return failed(task, "environment", f"{error.found}; expected {error.expected}", error.remedy)
    if isinstance(error, OSError):
        return failed(task, "io", str(error), "Check the disk and the permissions, then run the command again.")
    if isinstance(error, MemoryError):
        reason = f"not enough memory for this slide {f'({error})' if str(error) else ''}".rstrip()
        return failed(task, "out_of_memory", reason, "Give workers more memory (fewer --workers), or leave it out.")
    remedy = "This is a bug in wsi-lmc: report it with this slide's file in logs/; other slides are not affected."
    outcome = failed(task, "internal", f"{type(error).__name__}: {error}", remedy)
    return replace(outcome, detail="".join(traceback.format_exception(error)))


class SerialExecutor:
    """Everything in this process, one task after the other; a crash of a codec ends the run."""

    def run[T: Task](self, step: Step[T], tasks: Sequence[T], on_gpu: bool = False) -> Iterator[Outcome]:
        """See :class:`Executor`; outcomes come in the order of the tasks."""
        del on_gpu
        agenda = Agenda(tasks)
        while (item := agenda.take()) is not None:
            outcome = agenda.ended(item, attempt(step, item.task))
            if outcome is not None:
                yield outcome

    def has_gpu(self) -> bool:
        """See :class:`Executor`."""
        return False

    def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`Executor`."""
        return function(*args, **kwargs)

    def __enter__(self) -> "SerialExecutor":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def failed(task: Task, code: SlideCode, reason: str, remedy: str) -> Outcome:
    """The outcome of a task that has failed."""
    return Outcome(task.slide_id, task.stage, "failed", code, reason, remedy)
