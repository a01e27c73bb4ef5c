"""A time limit for native code: a worker process that hangs in a slide ends itself, and the slide's next try says so.

No Python thread can stop a library that hangs and keeps the interpreter; faulthandler's watchdog, which is a thread of
the C runtime, can end the whole process. It leaves a note first, so that the same slide is not waited for twice.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.errors import SlideError


@dataclass(frozen=True)
class TimeLimit:
    """``seconds`` for each slide; notes of those that took longer go to the folder ``notes``, which must exist."""

    seconds: float
    notes: Path


@contextmanager
def within(limit: TimeLimit | None, slide_id: str) -> Iterator[None]:
    """Do something with a slide within a time limit, after which this process is ended; with None, without one.

    For processes that do one thing at a time: there is one watchdog a process.

    Raises:
        SlideError: ``timed_out``, where an earlier try has.
    """
    if limit is None:
        yield
        return
    note = limit.notes / f"{slide_id}.txt"
    if note.is_file() and note.stat().st_size:
        raise SlideError(
            "timed_out",
            f"no end after {limit.seconds:g} seconds",
            "a slide that can be read in that time",
            "Try again with a larger --limit if the disk is slow; otherwise copy the slide again or leave it out.",
        )
    with note.open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(limit.seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    note.unlink()
