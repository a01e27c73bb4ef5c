"""How far a run is: counts, rate and time left, for the bar of a running command and for ``wsi-lmc status`` alike.

The command adds outcomes as they come in; ``status`` takes them from the records in the run folder, which it only ever
reads: no lock is taken and nothing is written, so it never slows or stops those who work there.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.errors import UsageError
from wsi_lmc.publish import Holder, holders
from wsi_lmc.runfolder import RECORDS, STAGES, planned_slides, read_record
from wsi_lmc.steps.outcome import Outcome, Stage, State

WINDOWS_S = (600.0, 3600.0)
_ENOUGH = 3  # ends in the short window, or the long one is taken: a rate from one slide says little
_KEPT = 1000  # ends that a rate is made of, at most


@dataclass(frozen=True)
class Pace:
    """Units a minute, measured over the last ``over_s`` seconds; None where nothing ended lately."""

    per_minute: float | None = None
    tiles_per_minute: float | None = None
    over_s: float = 0.0


@dataclass(frozen=True)
class Standing:
    """How far a stage is. ``total`` units are planned, ``ended`` have come out, ``states`` counts how."""

    what: str
    total: int
    ended: int
    states: dict[State, int]
    tiles: int
    pace: Pace

    @property
    def left(self) -> int:
        """Units that have not come out yet."""
        return max(0, self.total - self.ended)

    @property
    def eta_s(self) -> float | None:
        """Seconds until all are through at the present pace; None where there is none, or nothing left."""
        return self.left / self.pace.per_minute * 60 if self.left and self.pace.per_minute else None

    def remaining(self) -> str:
        """What is left of the time, in words."""
        if not self.left:
            return ""
        return f"about {in_words(self.eta_s)} left" if self.eta_s is not None else "time left unknown"

    def line(self) -> str:
        """All of it in one line."""
        shown = [
            f"{self.states[state]} {state}" for state in ("done", "empty", "failed", "skipped") if state in self.states
        ]
        if self.left and self.states:
            shown.append(f"{self.left} left")
        if self.tiles:
            shown.append(f"{self.tiles} tiles")
        if self.left and self.pace.per_minute:
            shown.append(f"{self.pace.per_minute:.1f} a minute")
        return ", ".join([f"{self.what}: {self.ended} of {self.total}", *shown, *filter(None, [self.remaining()])])


@dataclass(frozen=True)
class _End:
    at: float
    began: float
    tiles: int


class Tally:
    """Adds up what comes out; the one place where counts, rates and times left are made."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._ended, self._tiles = what, total, 0, 0
        self._states: Counter[State] = Counter()
        self._ends: deque[_End] = deque(maxlen=_KEPT)

    def add(self, outcome: Outcome, at: float) -> None:
        """An outcome that came in at ``at``; one that was there before says nothing about the pace."""
        self._ended += 1
        self._tiles += outcome.tiles
        self._states[outcome.state] += 1
        if outcome.fresh:
            self._ends.append(_End(at, at - outcome.seconds, outcome.tiles))

    def reach(self, ended: int, began: float, at: float) -> None:
        """``ended`` units in all, the last of which took from ``began`` to ``at``."""
        self._ends.extend(_End(at, began, 0) for _ in range(min(ended - self._ended, _KEPT)))
        self._ended = ended

    def standing(self, now: float) -> Standing:
        """How far it is at ``now``, by the clock of the ends."""
        return Standing(self._what, self._total, self._ended, dict(self._states), self._tiles, self._pace(now))

    def _pace(self, now: float) -> Pace:
        recent: list[_End] = []
        window = 0.0
        for window in WINDOWS_S:
            recent = [end for end in self._ends if end.at > now - window]
            if len(recent) >= _ENOUGH:
                break
        if not recent:
            return Pace()
        over = max(now - max(now - window, min(end.began for end in recent)), 1e-3)
        return Pace(len(recent) / over * 60, sum(end.tiles for end in recent) / over * 60, over)


@dataclass(frozen=True)
class StageStatus:
    """A stage of a run folder: ``failures`` by slide id, ``working`` the slides in work, ``last_at`` the last end."""

    stage: Stage
    standing: Standing
    failures: list[Outcome]
    working: list[Holder]
    last_at: float | None


class RunReader:
    """Reads a run's status, again and again; a record is read a second time only once it is another."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._known: dict[str, tuple[int, Outcome | None]] = {}

    def read(self, now: float) -> list[StageStatus]:
        """Every stage that has been begun.

        Raises:
            UsageError: the folder is none that a run works in.
        """
        if not (self._out / RECORDS).is_dir():
            raise UsageError(
                f"no run in {self._out}", "a run folder, with records/", "Name the folder that tile or embed got by -o."
            )
        working = holders(self._out)
        found = [self._stage(stage, working, now) for stage in STAGES]
        return [status for status in found if status.standing.total]

    def _stage(self, stage: Stage, working: Iterable[Holder], now: float) -> StageStatus:
        timed = sorted(self._records(self._out / RECORDS / stage), key=lambda item: (item[0], item[1].slide_id))
        planned = planned_slides(self._out, stage) | {outcome.slide_id for _, outcome in timed}
        tally = Tally(stage, len(planned))
        for at, outcome in timed:
            tally.add(outcome, at)
        failures = sorted((o for _, o in timed if o.state == "failed"), key=lambda outcome: outcome.slide_id)
        own = [holder.of(stage) for holder in working if holder.name.startswith(f"{stage}-")]
        return StageStatus(stage, tally.standing(now), failures, own, timed[-1][0] if timed else None)

    def _records(self, folder: Path) -> list[tuple[float, Outcome]]:
        """Records with the times they were written at."""
        found: list[tuple[float, Outcome]] = []
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if not entry.name.endswith(".json"):
                continue
            written = entry.stat().st_mtime_ns
            known = self._known.get(entry.path)
            if known is None or known[0] != written:
                known = self._known[entry.path] = (written, read_record(Path(entry.path)))
            if known[1] is not None:
                found.append((written / 1e9, known[1]))
        return found


def in_words(seconds: float) -> str:
    """A span of time, as a person says it.

    >>> in_words(45), in_words(600), in_words(7200)
    ('45 s', '10 min', '2.0 h')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}" if unit != "min" else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
