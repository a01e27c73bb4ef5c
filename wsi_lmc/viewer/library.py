"""The slides of some run folders as a list to look through: quick for ten thousand, and never older than a few seconds.

States come from ``slides.csv``; only records that are newer than that table are read one by one.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from wsi_lmc.cohort import SlideEntry, read_rows, safe_id
from wsi_lmc.errors import UsageError
from wsi_lmc.runfolder import (
    MANIFEST,
    PLANNED,
    RECORDS,
    SLIDES,
    STAGES,
    list_slides,
    planned_slides,
    read_record,
)

NOT_YET = "not yet"
_ORDER = {"failed": 0, NOT_YET: 1, "empty": 2, "skipped": 3, "done": 4}
_RENEWED_S = 3.0  # a run in work changes all the time; nobody sees more of it than this
_NEEDED = ("slide_id", "stage", "state", "code", "reason", "remedy", "tiles", "mpp")


@dataclass(frozen=True)
class SlideRow:
    """One slide in the list; ``mpp`` in microns per level-0 pixel, ``run`` the number of its run folder."""

    slide_id: str
    run: int
    state: str = NOT_YET
    stage: str = ""
    code: str = ""
    reason: str = ""
    remedy: str = ""
    tiles: int = 0
    mpp: float | None = None
    site: str = ""
    label: str = ""
    patient: str = ""

    @property
    def words(self) -> str:
        """What a search looks through."""
        return " ".join((self.slide_id, self.site, self.label, self.patient, self.state, self.code)).casefold()


@dataclass(frozen=True)
class Query:
    """Which part of the list: ``text`` holds words that must all occur; ``sort`` is a field of :class:`SlideRow`."""

    text: str = ""
    state: str = ""
    sort: str = "slide_id"
    start: int = 0
    count: int = 200


@dataclass(frozen=True)
class Page:
    """Some rows: those from ``start`` on of ``total`` that fit a query; ``states`` counts those that fit its text."""

    rows: tuple[SlideRow, ...]
    start: int
    total: int
    of: int
    states: Mapping[str, int]


@dataclass(frozen=True)
class _Known:
    """All that is known at a time: slides by id, their order, and what a search looks through."""

    rows: Mapping[str, SlideRow]
    entries: Mapping[str, SlideEntry]
    words: Mapping[str, str]


class Library:
    """The slides of run folders, for several threads."""

    def __init__(self, runs: Sequence[Path]) -> None:
        """Read them once.

        Raises:
            UsageError: a folder is no run, or two of them have a slide of the same id.
        """
        for run in runs:
            if not any((run / name).exists() for name in (RECORDS, MANIFEST, "tiles", "features")):
                raise UsageError(
                    f"no run in {run}", "a run folder, with tiles/ or features/", "Name what tile or embed got by -o."
                )
        self.runs = tuple(runs)
        self._lock = Lock()
        self._signs: list[object] = []
        self._looked = 0.0
        self._records: dict[str, tuple[int, SlideRow | None]] = {}
        self._known = self._read(refuse=True)

    def page(self, query: Query) -> Page:
        """The slides that fit a query, in its order, from its start on."""
        known, words = self._renewed(), query.text.casefold().split()
        fit = [row for row in known.rows.values() if all(word in known.words[row.slide_id] for word in words)]
        states = Counter(row.state for row in fit)
        found = [row for row in fit if not query.state or row.state == query.state]
        found.sort(key=lambda row: (_sort_key(row, query.sort), row.slide_id))
        start = max(0, query.start)
        rows = tuple(found[start : start + max(0, query.count)])
        return Page(rows, start, len(found), len(known.rows), states)

    def find(self, slide_id: str) -> tuple[SlideRow, SlideEntry | None] | None:
        """A slide with its manifest's entry; None where no run has such a slide."""
        known = self._renewed()
        row = known.rows.get(slide_id)
        return None if row is None else (row, known.entries.get(slide_id))

    def all(self) -> list[SlideRow]:
        """Every slide, by id."""
        return list(self._renewed().rows.values())

    def _renewed(self) -> _Known:
        with self._lock:
            if time.monotonic() - self._looked > _RENEWED_S:
                if self._signs != [_sign(run) for run in self.runs]:
                    self._known = self._read()
                self._looked = time.monotonic()
            return self._known

    def _read(self, refuse: bool = False) -> _Known:
        self._signs = [_sign(run) for run in self.runs]
        rows: dict[str, SlideRow] = {}
        entries: dict[str, SlideEntry] = {}
        for number, run in enumerate(self.runs):
            listed = {entry.slide_id: entry for entry in _entries(run)}
            for slide_id, row in self._rows(run, number, listed).items():
                if slide_id in rows and refuse:
                    raise UsageError(
                        f"slide {slide_id} in {self.runs[rows[slide_id].run]} and in {run}",
                        "every slide in one run folder",
                        "View the folders one by one, or give the slides other ids (column slide_id).",
                    )
                if slide_id not in rows:
                    rows[slide_id] = row
                    if slide_id in listed:
                        entries[slide_id] = listed[slide_id]
        ordered = dict(sorted(rows.items()))
        return _Known(ordered, entries, {slide_id: row.words for slide_id, row in ordered.items()})

    def _rows(self, run: Path, number: int, entries: Mapping[str, SlideEntry]) -> dict[str, SlideRow]:
        """The slides of a run: of its table, of newer records, and those that were planned or only lie there."""
        rows, written = _table(run, number)
        for stage in STAGES:
            for row in self._newer(run / RECORDS / stage, number, written):
                rows[row.slide_id] = _later(rows.get(row.slide_id), row)
        asked = {slide_id for stage in STAGES for slide_id in planned_slides(run, stage)}
        for slide_id in (*entries, *sorted(asked)):
            rows.setdefault(slide_id, SlideRow(slide_id, number))
        for slide_id in _lying(run):
            rows.setdefault(slide_id, SlideRow(slide_id, number, "done"))
        safe = {slide_id: row for slide_id, row in rows.items() if safe_id(slide_id) == slide_id}  # else no run's own
        return {slide_id: _named(row, entries.get(slide_id)) for slide_id, row in safe.items()}

    def _newer(self, folder: Path, number: int, than: int) -> Iterable[SlideRow]:
        """Records written since the table was (``than``: nanoseconds); each version of one is read once."""
        if not folder.is_dir():
            return
        with os.scandir(folder) as found:
            changed = [(each.path, each.stat().st_mtime_ns) for each in found if each.name.endswith(".json")]
        for path, written in sorted(changed):
            if written <= than:
                continue
            known = self._records.get(path)
            if known is None or known[0] != written:
                known = self._records[path] = (written, _recorded(Path(path), number))
            if known[1] is not None:
                yield known[1]


def _entries(run: Path) -> list[SlideEntry]:
    """Slides of a manifest; one that is damaged counts as none."""
    try:
        return list_slides(run)
    except UsageError:
        return []


def _table(run: Path, number: int) -> tuple[dict[str, SlideRow], int]:
    """Rows of ``slides.csv`` by id, and when it was written (nanoseconds; 0 where there is none)."""
    path = run / SLIDES
    try:
        written = path.stat().st_mtime_ns
        rows = [row.cells for row in read_rows(path, _NEEDED, _NEEDED, own=True)]
    except (OSError, UsageError):
        return {}, 0
    return {cells["slide_id"]: _of_cells(cells, number) for cells in rows}, written


def _of_cells(cells: Mapping[str, str], number: int) -> SlideRow:
    row = SlideRow(
        *(cells["slide_id"], number, cells["state"], cells["stage"]),
        *(cells["code"], cells["reason"], cells["remedy"]),
    )
    try:
        return replace(row, tiles=int(cells["tiles"] or 0), mpp=float(cells["mpp"]) if cells["mpp"] else None)
    except ValueError:  # a table that somebody changed
        return row


def _recorded(path: Path, number: int) -> SlideRow | None:
    try:
        found = read_record(path)
    except OSError:
        return None
    if found is None:
        return None
    told = (found.state, found.stage, found.code, found.reason, found.remedy)
    return SlideRow(found.slide_id, number, *told, tiles=found.tiles, mpp=found.mpp)


def _later(earlier: SlideRow | None, row: SlideRow) -> SlideRow:
    """What counts of two, as in ``slides.csv``: the last stage that was reached or failed in."""
    if earlier is None or earlier.stage == row.stage:
        return row
    if row.stage == STAGES[0]:  # tiled anew after it had been embedded
        return earlier
    return earlier if earlier.state == row.state == "failed" else row


def _named(row: SlideRow, entry: SlideEntry | None) -> SlideRow:
    return row if entry is None else replace(row, site=entry.site, label=entry.label, patient=entry.patient)


def _lying(run: Path) -> list[str]:
    """Ids of stores, which may have been made without a run (of others' features, say)."""
    found: set[str] = set()
    for name in ("tiles", "features"):
        if (run / name).is_dir():
            with os.scandir(run / name) as stores:
                found |= {store.name.removesuffix(".zarr") for store in stores if store.name.endswith(".zarr")}
    return sorted(found)


def _sign(run: Path) -> tuple[int, ...]:
    """What is another when anything in the list may be: publishing a file changes its folder's time."""
    names = (MANIFEST, SLIDES, *(f"{RECORDS}/{each}" for each in (*STAGES, PLANNED)), "tiles", "features")
    return tuple((run / name).stat().st_mtime_ns if (run / name).exists() else 0 for name in names)


def _sort_key(row: SlideRow, sort: str) -> tuple[int, float, str]:
    if sort == "state":
        return (_ORDER.get(row.state, 1), 0.0, row.code)
    if sort == "tiles":
        return (0, -row.tiles, "")
    return (0, 0.0, {"site": row.site, "label": row.label}.get(sort, ""))
