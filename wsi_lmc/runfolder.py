"""A run folder: which slides it has, how each came out, and the table of it all.

Every slide has one record per stage (``records/<stage>/<slide_id>.json``), published as soon as it is known, so a
killed run has lost nothing. ``slides.csv`` is derived from the records, and ``manifest.csv`` keeps every slide's path
and labels under its safe id. ``records/planned/`` holds which slides a stage was asked for, a file per cohort.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast, get_args

from wsi_lmc.cohort import SlideEntry, read_manifest, write_manifest
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.publish import exclusive, prepare_output, publish_text, publishing
from wsi_lmc.steps.outcome import Outcome, Stage, State

DEFAULT = Path("wsi-lmc-run")
SLIDES, MANIFEST, RECORDS, LOGS = "slides.csv", "manifest.csv", "records", "logs"
PLANNED = "planned"
STAGES: tuple[Stage, ...] = ("tile", "embed")
_COLUMNS = (
    "slide_id", "stage", "state", "code", "reason", "remedy", "tiles", "mpp", "mpp_source", "seconds",
)  # fmt: skip
_TYPES = {"tiles": int, "seconds": int | float, "mpp": int | float | None, "fresh": bool}
"""What a record's values are; those that are not here are text."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def prepare_run(out: Path, inputs: Sequence[str] = ()) -> None:
    """Create the run folder, before any work, unless it lies inside an input folder.

    Raises:
        UsageError: it does, or it cannot be written to.
    """
    for text in inputs:
        folder = Path(text).resolve()
        if folder.is_dir() and out.resolve().is_relative_to(folder) and not (folder / RECORDS).is_dir():
            raise UsageError(
                f"output {out} lies inside the input {text}", "an output of its own", "Choose a folder outside with -o."
            )
    prepare_output(out)


def add_slides(out: Path, entries: Iterable[SlideEntry]) -> None:
    """Put slides into the run's manifest; rows of other slides stay, rows of the same id are replaced."""
    with exclusive(out, "manifest"):
        known = {entry.slide_id: entry for entry in list_slides(out)}
        known |= {entry.slide_id: entry for entry in entries}
        with publishing(out, out / MANIFEST) as draft:
            write_manifest(draft, sorted(known.values(), key=lambda entry: entry.slide_id))


def list_slides(out: Path) -> list[SlideEntry]:
    """Slides of the run's manifest; none where there is no manifest yet."""
    path = out / MANIFEST
    return read_manifest(path, own=True) if path.is_file() else []


def plan(out: Path, stage: Stage, slide_ids: Iterable[str]) -> None:
    """Note which slides a stage is asked for: all of the cohort, whichever share of it this process does.

    A cohort's file is named by its content, so processes that write at the same time need no lock.
    """
    text = json.dumps(sorted(slide_ids), indent=0) + "\n"
    path = out / RECORDS / PLANNED / f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        publish_text(out, path, text)


def planned_slides(out: Path, stage: Stage) -> set[str]:
    """Ids of every slide that a stage was ever asked for; of a folder older than plans, those of its manifest.

    Raises:
        StoreError: a plan is damaged.
    """
    plans = list((out / RECORDS / PLANNED).glob(f"{stage}-*.json"))
    if not plans and stage == "tile" and (out / RECORDS / stage).is_dir():
        return {entry.slide_id for entry in list_slides(out)}
    return {slide_id for path in plans for slide_id in read_plan(path)}


def read_plan(path: Path) -> list[str]:
    """The ids of one cohort that a stage was asked for.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list) or not all(isinstance(slide_id, str) for slide_id in ids):
        raise StoreError(f"{path.name} is damaged", "a list of slides", "Remove it, and run the same command again.")
    return cast(list[str], ids)


def record(out: Path, outcome: Outcome) -> None:
    """Publish how a slide came out of a stage; a result that was there already keeps the record of its making."""
    path = _record_path(out, outcome.stage, outcome.slide_id)
    earlier = read_record(path) if not outcome.fresh else None
    if earlier is not None and earlier.state == outcome.state:
        return
    publish_text(out, path, json.dumps(asdict(outcome), indent=1) + "\n")
    if outcome.detail:
        publish_text(out, out / LOGS / f"{outcome.stage}-{outcome.slide_id}.txt", outcome.detail)


def outcomes(out: Path, stage: Stage) -> list[Outcome]:
    """Every record of a stage, by slide id."""
    found = [read_record(path) for path in sorted((out / RECORDS / stage).glob("*.json"))]
    return [outcome for outcome in found if outcome is not None]


def write_table(out: Path) -> None:
    """Derive ``slides.csv`` from the records: a row per slide, for the last stage it reached or failed in."""
    with exclusive(out, SLIDES):
        rows: dict[str, Outcome] = {}
        for stage in STAGES:
            for outcome in outcomes(out, stage):
                earlier = rows.get(outcome.slide_id)
                if earlier is None or earlier.state != "failed" or outcome.state != "failed":
                    rows[outcome.slide_id] = outcome
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for slide_id in sorted(rows):
            writer.writerow([_cell(getattr(rows[slide_id], column)) for column in _COLUMNS])
        publish_text(out, out / SLIDES, text.getvalue())


def _record_path(out: Path, stage: Stage, slide_id: str) -> Path:
    return out / RECORDS / stage / f"{slide_id}.json"


def read_record(path: Path) -> Outcome | None:
    """A record; None where there is none, or one that is damaged or that another version wrote."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Outcome)}:
        return None
    if not all(isinstance(value, _TYPES.get(name, str)) for name, value in values.items()):
        return None
    known = values["state"] in get_args(State) and values["stage"] in STAGES
    return Outcome(**cast(dict[str, Any], values)) if known else None


def _cell(value: object) -> str:
    """A cell of one line; text that a spreadsheet would run as a formula gets an apostrophe in front.

    What cannot be printed is escaped: names of files stand in reasons, and a lone CR would begin a row.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    formula = isinstance(value, str) and text.startswith(_FORMULA)
    shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return f"'{shown}" if formula else shown
