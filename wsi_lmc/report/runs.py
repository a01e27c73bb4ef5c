"""A run folder's slides as a report sees them: entries of the manifest, and how each came out of each stage."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.report.finding import Place
from wsi_lmc.report.privacy import Discreet
from wsi_lmc.runfolder import RECORDS, STAGES, list_slides, outcomes, planned_slides
from wsi_lmc.steps.outcome import Outcome

NO_SITE = "no site named"


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    ``planned`` are the slides that anything was ever asked of, ``first`` and ``last`` when the first and the last of
    them came out (seconds since 1970; None where none did).
    """

    place: Place
    entries: Mapping[str, SlideEntry]
    tiled: Mapping[str, Outcome]
    embedded: Mapping[str, Outcome]
    planned: tuple[str, ...]
    first: float | None
    last: float | None
    discreet: Discreet

    def site(self, slide_id: str) -> str:
        """A slide's site in words."""
        entry = self.entries.get(slide_id)
        return entry.site if entry and entry.site else NO_SITE

    def outcome(self, slide_id: str) -> Outcome | None:
        """How a slide came out: a failure of either stage before anything else, then tiling, then embedding."""
        found = [stage[slide_id] for stage in (self.tiled, self.embedded) if slide_id in stage]
        return next((each for each in found if each.state == "failed"), found[0] if found else None)


def read_run(place: Place) -> Run:
    """Read a run's manifest and records; a manifest that is damaged counts as none."""
    try:
        entries = {entry.slide_id: entry for entry in list_slides(place.path)}
    except UsageError:
        entries = {}
    tiled, embedded = ({each.slide_id: each for each in outcomes(place.path, stage)} for stage in STAGES)
    asked = {slide_id for stage in STAGES for slide_id in planned_slides(place.path, stage)}
    planned = tuple(sorted(asked | tiled.keys() | embedded.keys()))
    times = [time for stage in STAGES for time in _times(place.path / RECORDS / stage)]
    first, last = (min(times), max(times)) if times else (None, None)
    return Run(place, entries, tiled, embedded, planned, first, last, Discreet(place.path, entries))


def _times(folder: Path) -> list[float]:
    if not folder.is_dir():
        return []
    return [entry.stat().st_mtime for entry in os.scandir(folder) if entry.name.endswith(".json")]
