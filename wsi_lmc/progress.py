"""How far a run is: a bar on a terminal, a plain line every 30 seconds elsewhere (SLURM logs); on standard error."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 30.0


class ProgressReport:
    """Counts units of work; a context manager. ``every_s`` is the pause between lines off a terminal."""

    def __init__(self, what: str, total: int, quiet: bool = False, every_s: float = LINE_EVERY_S) -> None:
        self._what, self._total, self._quiet, self._every_s = what, total, quiet, every_s
        self._done, self._began, self._last = 0, time.monotonic(), time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressReport":
        if not self._quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, note="")
        return self

    def advance(self, note: str = "") -> None:
        """One unit is done; ``note`` says something about it."""
        self.reach(self._done + 1, note)

    def reach(self, done: int, note: str = "") -> None:
        """``done`` units in all are done."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=note)
            return
        now = time.monotonic()
        if not self._quiet and now - self._last >= self._every_s and self._done < self._total:
            self._last = now
            self.line(f"{self._what}: {self._done} of {self._total}, {self._remaining(now)}{', ' * bool(note)}{note}")

    def line(self, text: str) -> None:
        """A line of its own, which stays on the screen."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _remaining(self, now: float) -> str:
        left = (now - self._began) / self._done * (self._total - self._done)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
