"""A run folder: which slides it has, how each came out, and the table of it all.

Every slide has one record per stage (``records/<stage>/<slide_id>.json``), published as soon as it is known, so a
killed run has lost nothing. ``slides.csv`` is derived from the records, and ``manifest.csv`` keeps every slide's path
and labels under its safe id. ``records/planned/`` holds what a stage was asked for, a file per cohort.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast, get_args

from wsi_lmc.cohort import SlideEntry, read_manifest, real_path, write_manifest
from wsi_lmc.confinement import confine
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import LOCKS, WORKING, exclusive, prepare_output, publish_text, publishing
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.steps.outcome import Outcome, Stage, State

DEFAULT = Path("wsi-lmc-run")
SLIDES, MANIFEST, RECORDS, LOGS = "slides.csv", "manifest.csv", "records", "logs"
PLANNED = "planned"
_OWN = (
    SLIDES, MANIFEST, LOGS, WORKING, LOCKS, "run.yaml", ".parts",
    "tiles", "contours", "overviews", "features", "stains", "images", "labels",
    f"{RECORDS}/tile", f"{RECORDS}/embed", f"{RECORDS}/{PLANNED}",
)  # fmt: skip
"""What a run writes into its folder."""
STAGES: tuple[Stage, ...] = ("tile", "embed")
_COLUMNS = (
    "slide_id", "stage", "state", "code", "reason", "remedy", "tiles", "mpp", "mpp_source", "seconds",
)  # fmt: skip
_SEAL = "sealed"
_TYPES = {"tiles": int, "seconds": int | float, "mpp": int | float | None, "fresh": bool}
"""What a record's values are; those that are not here are text."""


def prepare_run(out: Path, inputs: Sequence[str] = ()) -> None:
    """Create the run folder, before any work, unless it lies inside an input folder.

    Raises:
        UsageError: it does, or it cannot be written to, or something in it is a link.
    """
    for text in inputs:
        folder = real_path(Path(text))
        if folder.is_dir() and real_path(out).is_relative_to(folder) and not (folder / RECORDS).is_dir():
            raise UsageError(
                f"output {out} lies inside the input {text}", "an output of its own", "Choose a folder outside with -o."
            )
    prepare_output(out)
    confine(out, (out / name for name in _OWN))


def add_slides(out: Path, entries: Iterable[SlideEntry]) -> None:
    """Put slides into the run's manifest; rows of other slides stay, rows of the same id are replaced.

    Raises:
        UsageError: some slides would have pseudonyms, and others not: who compares them could tell whose they are.
    """
    entries = list(entries)
    with exclusive(out, "manifest"):
        known = {entry.slide_id: entry for entry in list_slides(out)}
        if len({entry.hidden for entry in (*known.values(), *entries)}) > 1:
            hidden = not entries[0].hidden
            raise UsageError(
                f"slides of {out} have {'pseudonyms' if hidden else 'their own names'}, those given now have not",
                "one kind of names in a run folder",
                "Pass --pseudonyms." if hidden else "Choose another folder with -o.",
            )
        known |= {entry.slide_id: entry for entry in entries}
        with publishing(out, out / MANIFEST) as draft:
            write_manifest(draft, sorted(known.values(), key=lambda entry: entry.slide_id))


def confine_results(out: Path, stage: Stage, results: Mapping[str, Sequence[Path]]) -> None:
    """Check, before any work, where slides' results (by id) and records of a stage will be written.

    Raises:
        UsageError: one of them is a link, or lies behind one.
    """
    for slide_id, paths in results.items():
        confine(out, (*paths, record_path(out, stage, slide_id), _log_path(out, stage, slide_id)))


def list_slides(out: Path) -> list[SlideEntry]:
    """Slides of the run's manifest; none where there is no manifest yet."""
    path = out / MANIFEST
    return read_manifest(path, own=True) if path.is_file() else []


@dataclass(frozen=True)
class Request:
    """What a stage was asked for, beside its settings: enough to ask again.

    ``mask`` is an outline or a folder of them; ``stores`` are tile stores by slide id, relative to the run folder where
    they lie in it; slides that are in none of them are read from their files. ``packed`` slides are groups of images.
    ``imported`` is the tool that made the features, where it was not this one.
    """

    slides: tuple[str, ...]
    mask: str | None = None
    encoder: str | None = None
    stores: Mapping[str, str] = field(default_factory=dict)
    packed: bool = False
    imported: str | None = None

    def covers(self, other: "Request") -> bool:
        """Whether the same was asked for, of at least the same slides."""
        stores = {slide_id: self.stores.get(slide_id) for slide_id in other.stores}
        asked = (other.mask, other.encoder, dict(other.stores), other.packed, other.imported)
        same = (self.mask, self.encoder, stores, self.packed, self.imported) == asked
        return same and set(other.slides) <= set(self.slides)


def plan(out: Path, stage: Stage, request: Request) -> None:
    """Note what a stage is asked for: all of the cohort, whichever share of it this process does.

    A request's file is named by its content, so processes that write at the same time need no lock.
    """
    if any(earlier.covers(request) for earlier in requests(out, stage)):
        return
    text = json.dumps(asdict(replace(request, slides=tuple(sorted(request.slides)))), indent=0) + "\n"
    path = out / RECORDS / PLANNED / f"{stage}-{_digest(text)}.json"
    publish_text(out, path, text)


def requests(out: Path, stage: Stage) -> list[Request]:
    """What a stage was ever asked for, the latest first."""
    files = list((out / RECORDS / PLANNED).glob(f"{stage}-*.json"))
    found = [read_request(path) for path in sorted(files, key=_written, reverse=True)]
    return [request for request in found if request is not None]


def read_request(path: Path) -> Request | None:
    """A request; None where the file is damaged, or of another version."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not path.stem.endswith(_digest(text)):
        return None
    try:
        values = json.loads(text)
        listed = {"slides": values} if isinstance(values, list) else dict(values)  # a list: of an older version
        return Request(**{**listed, "slides": tuple(listed["slides"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def planned_slides(out: Path, stage: Stage) -> set[str]:
    """Ids of every slide that a stage was ever asked for; of a folder older than plans, those of its manifest."""
    found = requests(out, stage)
    if not found and stage == "tile" and (out / RECORDS / stage).is_dir():
        return {entry.slide_id for entry in list_slides(out)}
    return {slide_id for request in found for slide_id in request.slides}


def record(out: Path, outcome: Outcome) -> None:
    """Publish how a slide came out of a stage; a result that was there already keeps the record of its making."""
    path = record_path(out, outcome.stage, outcome.slide_id)
    earlier = read_record(path) if not outcome.fresh else None
    if earlier is not None and earlier.state == outcome.state:
        return
    values = asdict(outcome)
    publish_text(out, path, json.dumps({**values, _SEAL: fingerprint(values)}, indent=1) + "\n")
    if outcome.detail:
        publish_text(out, _log_path(out, outcome.stage, outcome.slide_id), outcome.detail)


def outcomes(out: Path, stage: Stage) -> list[Outcome]:
    """Every record of a stage, by slide id."""
    found = [read_record(path) for path in sorted((out / RECORDS / stage).glob("*.json"))]
    return [outcome for outcome in found if outcome is not None]


def write_table(out: Path) -> None:
    """Derive ``slides.csv`` from the records."""
    with exclusive(out, SLIDES):
        publish_text(out, out / SLIDES, derive_table(out))


def derive_table(out: Path) -> str:
    """What ``slides.csv`` must say: a row per slide, for the last stage it reached or failed in."""
    rows: dict[str, Outcome] = {}
    for stage in STAGES:
        for outcome in outcomes(out, stage):
            earlier = rows.get(outcome.slide_id)
            if earlier is None or earlier.state != "failed" or outcome.state != "failed":
                rows[outcome.slide_id] = outcome
    ordered = [rows[slide_id] for slide_id in sorted(rows)]
    return to_csv(_COLUMNS, ([_shown(getattr(outcome, column)) for column in _COLUMNS] for outcome in ordered))


def _shown(value: object) -> object:
    """Text on one line, what cannot be printed escaped: names of files stand in reasons."""
    if not isinstance(value, str):
        return value
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in value)


def record_path(out: Path, stage: Stage, slide_id: str) -> Path:
    """Where the record of a slide's stage lies."""
    return out / RECORDS / stage / f"{slide_id}.json"


def _log_path(out: Path, stage: Stage, slide_id: str) -> Path:
    return out / LOGS / f"{stage}-{slide_id}.txt"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _written(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def read_record(path: Path) -> Outcome | None:
    """A record; None where there is none, where it is damaged, or where another version wrote it."""
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
        seal = values.pop(_SEAL, None)  # older versions wrote none
        whole = seal is None or seal == fingerprint(values)
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    if not whole or set(values) != {each.name for each in fields(Outcome)}:
        return None
    if not all(isinstance(value, _TYPES.get(name, str)) for name, value in values.items()):
        return None
    known = values["state"] in get_args(State) and values["stage"] in STAGES
    return Outcome(**cast(dict[str, Any], values)) if known else None
