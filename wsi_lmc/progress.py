"""What a running command shows: a bar on a terminal, a plain line every 30 seconds elsewhere (SLURM logs).

On standard error; the numbers are those of :mod:`wsi_lmc.status`.
"""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wsi_lmc.status import Tally
from wsi_lmc.steps.outcome import Outcome

LINE_EVERY_S = 30.0


class ProgressReport:
    """Counts units of work; a context manager. ``every_s`` is the pause between lines off a terminal."""

    def __init__(self, what: str, total: int, quiet: bool = False, every_s: float = LINE_EVERY_S) -> None:
        self._what, self._total, self._quiet, self._every_s = what, total, quiet, every_s
        self._tally = Tally(what, total)
        self._before = self._last = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressReport":
        if not self._quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            notes = (TextColumn("{task.fields[left]}"), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, *notes, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, left="", note="")
        return self

    def add(self, outcome: Outcome) -> None:
        """A slide has come out."""
        self._tally.add(outcome, time.monotonic())
        self._show(f"{outcome.slide_id} {outcome.state}")

    def reach(self, done: int, note: str = "") -> None:
        """``done`` units in all are done; ``note`` says something about the last."""
        now = time.monotonic()
        self._tally.reach(done, self._before, now)
        self._before = now
        self._show(note)

    def line(self, text: str) -> None:
        """A line of its own, which stays on the screen."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show(self, note: str) -> None:
        now = time.monotonic()
        if self._bar is not None:
            standing = self._tally.standing(now)
            self._bar.update(self._task, completed=standing.ended, left=standing.remaining(), note=note)
        elif not self._quiet and now - self._last >= self._every_s:
            standing = self._tally.standing(now)
            if standing.left:
                self._last = now
                self.line(f"{standing.line()}{', ' * bool(note)}{note}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
