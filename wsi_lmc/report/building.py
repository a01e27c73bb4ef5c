"""A report from folders to one page: what is there is told, in the order in which a reader asks for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wsi_lmc.config import RUN_FILE, read_config, read_stamp, settings_of
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import created_by
from wsi_lmc.report.blocks import Block, Facts, Section, Table, cell
from wsi_lmc.report.cohort import cohort_section, failures_section, overviews_section
from wsi_lmc.report.evaluations import evaluation_section
from wsi_lmc.report.finding import Found, Place, find
from wsi_lmc.report.page import render
from wsi_lmc.report.privacy import told_setting
from wsi_lmc.report.results import classification_section, study_section
from wsi_lmc.report.runs import Run, read_run
from wsi_lmc.report.trainings import encoders_section, read_training, trainings_section
from wsi_lmc.settingsfile import CONFIGS


@dataclass(frozen=True)
class ReportConfig:
    """What a report shows: ``rows`` of a table and ``overviews`` at the most, under a ``title``."""

    title: str = "Report"
    rows: int = 500
    overviews: int = 24


def build_report(folders: Sequence[Path], config: ReportConfig) -> str:
    """The page about run folders and what was made of them, as HTML.

    Raises:
        UsageError: no such folder, or nothing in it to report on.
    """
    found = find(folders)
    runs = [read_run(place) for place in found.runs]
    settings = _settings(list(dict.fromkeys((*found.runs, *found.trainings))))
    sections = [_versions(runs), *_of_runs(runs, config), *_of_results(found, runs), *([settings] if settings else [])]
    return render(config.title, _summary(found, runs), sections)


def _of_runs(runs: Sequence[Run], config: ReportConfig) -> Iterator[Section]:
    tiled = [run for run in runs if run.tiled] or list(runs[:1])
    for number, run in enumerate(tiled):
        named = f" of {run.place.name}" if len(tiled) > 1 and run.place.name else ""
        yield _named(cohort_section(run, config.rows), number, named)
    failures = failures_section(runs, config.rows)
    if failures is not None:
        yield failures
    for number, run in enumerate(tiled):
        named = f" of {run.place.name}" if len(tiled) > 1 and run.place.name else ""
        overviews = overviews_section(run, config.overviews)
        if overviews is not None:
            yield _named(overviews, number, named)


def _named(section: Section, number: int, named: str) -> Section:
    return Section(f"{section.anchor}{number or ''}", f"{section.title}{named}", section.blocks)


def _of_results(found: Found, runs: Sequence[Run]) -> Iterator[Section]:
    trainings = [read_training(place) for place in found.trainings]
    whole = (trainings_section(trainings, runs), encoders_section(runs, trainings))
    yield from (section for section in whole if section is not None)
    for places, make in (
        (found.evaluations, evaluation_section),
        (found.classifications, classification_section),
        (found.studies, study_section),
    ):
        for number, place in enumerate(places):
            yield make(place, number, len(places) > 1)


def _versions(runs: Sequence[Run]) -> Section:
    facts = [("This page", f"made by {created_by()}")]
    times = [time for run in runs for time in (run.first, run.last) if time is not None]
    if times:
        first, last = (f"{datetime.fromtimestamp(time, UTC):%d %B %Y, %H:%M} UTC" for time in (min(times), max(times)))
        facts += [("First slide came out", first), ("Last slide came out", last)]
    return Section("when", "What and when", (Facts(tuple(facts)),))


def _settings(places: Sequence[Place]) -> Section | None:
    """Settings of every folder's ``run.yaml``, those that differ from the defaults first."""
    blocks: list[Block] = []
    for place in places:
        path = place.path / RUN_FILE
        try:
            sections, stamp = (read_config(path), read_stamp(path)) if path.is_file() else ({}, {})
        except UsageError:
            continue  # 'verify' tells of it
        made = f" Written by {stamp.get('created_by')}; fingerprint {stamp.get('fingerprint')}." if stamp else ""
        for section, values in sections.items():
            rows = _rows(section, values)
            changed = sum(value != default for _, value, default, _ in rows)
            blocks.append(
                Table(
                    f"Settings of {section}{f', {place.name}' if place.name else ''}: {changed} not the default",
                    ("setting", "value", "default", "what it is"),
                    tuple(tuple(map(cell, row)) for row in sorted(rows, key=lambda row: row[1] == row[2])),
                    len(rows),
                    f"Those that differ from the default come first.{made}",
                    aside=True,
                )
            )
    return Section("settings", "Settings", tuple(blocks)) if blocks else None


def _rows(section: str, values: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    known = {setting.name: setting for setting in settings_of(CONFIGS[section])}
    rows = []
    for name, value in values.items():
        setting = known.get(name)
        default, doc = (told_setting(setting.default), setting.doc) if setting else ("", "")
        rows.append((name, told_setting(value), default, doc))
    return rows


def _summary(found: Found, runs: Sequence[Run]) -> str:
    """What the page is about, in a sentence."""
    slides = len({slide_id for run in runs for slide_id in run.planned})
    sites = {entry.site for run in runs for entry in run.entries.values() if entry.site}
    parts = [f"{slides:,} slides of {len(sites)} sites" if len(sites) > 1 else f"{slides:,} slides"] if slides else []
    for places, noun in (
        (found.trainings, "training"),
        (found.evaluations, "evaluation"),
        (found.classifications, "classification"),
        (found.studies, "study"),
    ):
        if places:
            plural = {"study": "studies"}.get(noun, f"{noun}s")
            parts.append(f"{len(places)} {noun if len(places) == 1 else plural}")
    return ", ".join(parts)
