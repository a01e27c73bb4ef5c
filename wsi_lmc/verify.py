"""A run folder, looked at as a whole: is everything there, whole, and of the slides and settings it claims to be of?

Only reads. What somebody is at work on is left out; what cannot be compared from here is said, not guessed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from wsi_lmc.checkpoint import METRICS, damaged_states, saved_steps
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import RUN_FILE, build, read_config
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.inspection import problems_of_features, problems_of_tiles
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.publish import TEMPORARY, holders, leftovers
from wsi_lmc.runfolder import (
    MANIFEST,
    PLANNED,
    RECORDS,
    SLIDES,
    STAGES,
    derive_table,
    list_slides,
    planned_slides,
    read_record,
    read_request,
    record_path,
)
from wsi_lmc.steps.outcome import Outcome, Stage
from wsi_lmc.steps.parts import FOLDER as PARTS
from wsi_lmc.steps.sources import FROM_SLIDE
from wsi_lmc.steps.tile import TileConfig, settings_fingerprint
from wsi_lmc.threads import available_cores
from wsi_lmc.tilestore import TileStore

ENCODER, PROVENANCE = "encoder", "provenance.json"
STORES: dict[Stage, str] = {"tile": "tiles", "embed": "features"}
"""Folder of each stage's stores."""
Remedy = Literal["", "again", "anew", "remove", "table"]
"""What mends a finding: nothing here, the step again, the step after its damaged result has gone, or a removal."""
_INSPECT: dict[Stage, Callable[[Path], list[str]]] = {"tile": problems_of_tiles, "embed": problems_of_features}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: ``path`` is relative to the run folder, ``slide`` whose stage it belongs to, if any."""

    path: str
    said: str
    remedy: Remedy = ""
    slide: tuple[Stage, str] | None = None

    def __str__(self) -> str:
        """One line."""
        return f"{self.path}: {self.said}"


@dataclass(frozen=True)
class Verification:
    """What was found in a run folder, and notes on what could not be looked at; ``stores`` is how many were."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    stores: int


@dataclass
class _Run:
    """A run folder and what is needed of it again and again; damage of these files is found elsewhere."""

    out: Path
    unreachable: list[str] = field(default_factory=list)

    @cached_property
    def entries(self) -> dict[str, SlideEntry]:
        try:
            return {entry.slide_id: entry for entry in list_slides(self.out)}
        except UsageError:
            return {}

    @cached_property
    def settings(self) -> dict[str, dict[str, object]]:
        try:
            return read_config(self.out / RUN_FILE)
        except UsageError:
            return {}

    @cached_property
    def tile_config(self) -> TileConfig | None:
        try:
            return build(TileConfig, self.settings["tile"], RUN_FILE)
        except (KeyError, UsageError):
            return None

    @cached_property
    def busy(self) -> set[str]:
        """What somebody works on, such as ``tile-a`` or ``embed-a``; of a slide's parts, the slide."""
        return {holder.name.partition(".")[0] for holder in holders(self.out) if holder.alive is not False}

    def load(self) -> None:
        """Read what threads will ask for, before they do."""
        _ = self.busy, self.entries, self.tile_config

    def tiles_of(self, slide_id: str) -> Path | None:
        """The tile store that a slide's features were asked to be made of; None where it is not at hand."""
        for request in (read_request(path) for path in (self.out / RECORDS / PLANNED).glob("embed-*.json")):
            if request is not None and slide_id in request.stores:
                path = self.out / request.stores[slide_id]
                return path if path.is_dir() else None
        return None


def verify(out: Path, on_slide: Callable[[int], None] | None = None) -> Verification:
    """Look at everything in a run folder; ``on_slide`` hears how many stores have been looked at.

    Raises:
        UsageError: there is no run in the folder.
    """
    if not (out / RECORDS).is_dir():
        raise UsageError(f"no run in {out}", "a run folder, with records/", "Name the folder that tile or embed got.")
    run = _Run(out)
    run.load()
    stores = to_look_at(out)
    findings = list(_of_run(run))
    with ThreadPoolExecutor(available_cores(), "verify") as threads:
        for number, found in enumerate(threads.map(partial(_of_slide, run), stores)):
            findings += found
            if on_slide is not None:
                on_slide(number + 1)
    findings += _mixed_encoders(run)
    findings += [finding for folder in _checkpoints(out) for finding in _of_checkpoint(out, folder)]
    findings += _left_behind(run)
    return Verification(tuple(findings), tuple(_notes(run)), len(stores))


def to_look_at(out: Path) -> list[tuple[Stage, str]]:
    """Every stage of every slide that has a record or a store."""
    found: list[tuple[Stage, str]] = []
    for stage in STAGES:
        folder = STORES[stage]
        ids = {path.stem for path in (out / RECORDS / stage).glob("*.json")}
        ids |= {path.name.removesuffix(".zarr") for path in (out / folder).glob("*.zarr")}
        for slide_id in sorted(ids):
            found.append((stage, slide_id))
    return found


def _of_run(run: _Run) -> Iterator[Finding]:
    """The files that belong to no single slide."""
    out = run.out
    try:
        document = read_config(out / RUN_FILE)
        text = (out / RUN_FILE).read_text(encoding="utf-8")
        if f"fingerprint: {fingerprint(document)}" not in text:
            yield Finding(RUN_FILE, "does not match its fingerprint; restore it, or run the command again")
    except UsageError as error:
        yield Finding(RUN_FILE, f"{error.found}; run the command again")
    except OSError as error:
        yield Finding(RUN_FILE, f"cannot be read ({error.strerror}); run the command again")
    try:
        list_slides(out)
    except UsageError as error:
        yield Finding(MANIFEST, f"{error.found}; run the command again")
    missing = planned_slides(out, "tile") - run.entries.keys()
    if missing:
        yield Finding(MANIFEST, f"has no row of {', '.join(sorted(missing)[:5])}; run the tile command again")
    for path in sorted((out / RECORDS / PLANNED).glob("*.json")):
        if read_request(path) is None:
            yield Finding(_name(out, path), "cannot be read; run the command again", "remove")
    table = out / SLIDES
    if not run.busy and (not table.is_file() or table.read_bytes() != derive_table(out).encode()):
        yield Finding(SLIDES, "is not what the records give", "table")


def _of_slide(run: _Run, of: tuple[Stage, str]) -> list[Finding]:
    """One stage of one slide: its record, its store, and whether they are of each other."""
    stage, slide_id = of
    if f"{stage}-{slide_id}" in run.busy:
        return []
    path = run.out / STORES[stage] / f"{slide_id}.zarr"
    record_file = record_path(run.out, stage, slide_id)
    record = read_record(record_file)
    name = _name(run.out, path)
    if path.is_dir():
        damage = [line.partition(": ") for line in _INSPECT[stage](path)]
        if damage:
            return [Finding(f"{name}/{part}", said, "anew", of) for part, _, said in damage]
    if record is None or (record.slide_id, record.stage) != (slide_id, stage):
        said = "cannot be read" if record_file.is_file() else "missing, but there is a store"
        return [Finding(_name(run.out, record_file), said, "again", of)]
    if not path.is_dir():
        expected = record.state in ("done", "empty")
        return [Finding(name, f"missing, but recorded as {record.state}", "again", of)] if expected else []
    check = _of_tile_store if stage == "tile" else _of_feature_store
    return [Finding(name, said, remedy, of) for said, remedy in check(run, record, path)]


def _of_tile_store(run: _Run, record: Outcome, path: Path) -> Iterator[tuple[str, Remedy]]:
    store = TileStore.open(path)
    yield from _of_any_store(run, record, store.attributes, len(store))
    entry = run.entries.get(record.slide_id)
    if entry is not None and run.tile_config is not None:
        stated = settings_fingerprint(run.tile_config, entry)
        if store.attributes["config_fingerprint"] != stated:
            yield f"made with other settings than {RUN_FILE} states; run tile again with --overwrite to mend that", ""
    outline = run.out / "contours" / f"{record.slide_id}.geojson"
    stated = store.attributes.get("outline_sha256")
    if not outline.is_file():
        yield f"its outline contours/{outline.name} is missing", "anew"
    elif stated is not None and hashlib.sha256(outline.read_bytes()).hexdigest() != stated:
        yield f"its outline contours/{outline.name} is not the one its tiles were laid by", "anew"
    if not _is_picture(run.out / "overviews" / f"{record.slide_id}.jpg"):
        yield f"its picture overviews/{record.slide_id}.jpg is missing or damaged", "anew"


def _of_feature_store(run: _Run, record: Outcome, path: Path) -> Iterator[tuple[str, Remedy]]:
    store = FeatureStore.open(path)
    attributes = store.attributes
    yield from _of_any_store(run, record, attributes, len(store.valid))
    if attributes.get("tile_store") != FROM_SLIDE:
        tiles = run.tiles_of(record.slide_id)
        if tiles is None:
            run.unreachable.append(f"embed-{record.slide_id}")
        elif _opens(TileStore, tiles) and TileStore.open(tiles).fingerprint != attributes.get("tile_store"):
            yield "made from other tiles than there are now; run embed again with --overwrite", "anew"
    settings = run.settings.get("embed", {})
    stated = {"dtype": settings.get("dtype"), "normalised": settings.get("normalise")}
    found = {key: attributes["encoder"].get(key) for key in stated}
    if settings and found != stated:
        yield f"made with other settings than {RUN_FILE} states; run embed again with --overwrite to mend that", ""


def _opens(kind: type[TileStore] | type[FeatureStore], path: Path) -> bool:
    """Whether a store can be opened; that it cannot is a finding of its own."""
    try:
        kind.open(path)
    except StoreError:
        return False
    return True


def _of_any_store(run: _Run, record: Outcome, attributes: Any, count: int) -> Iterator[tuple[str, Remedy]]:  # noqa: ANN401  JSON
    if attributes["slide"]["id"] != record.slide_id:
        yield f"holds slide {attributes['slide']['id']}", "anew"
    if record.state in ("done", "empty") and (count != record.tiles or (record.state == "empty") != (count == 0)):
        yield f"holds {count} tiles, but is recorded as {record.state} with {record.tiles}", "again"
    entry = run.entries.get(record.slide_id)
    if entry is None or not entry.path.is_file():
        run.unreachable.append(record.slide_id)
    elif file_fingerprint(entry.path) != attributes["slide_fingerprint"]:
        yield (
            "made from another version of this slide; run the command again with --overwrite, or restore the slide",
            "",
        )


def _mixed_encoders(run: _Run) -> Iterator[Finding]:
    names: dict[str, str] = {}
    for path in sorted((run.out / STORES["embed"]).glob("*.zarr")):
        if _opens(FeatureStore, path):
            names.setdefault(str(FeatureStore.open(path).attributes["encoder"].get("sha256")), path.name)
    if len(names) > 1:
        yield Finding(STORES["embed"], f"features of {len(names)} encoders, such as {', '.join(names.values())}")


def _checkpoints(out: Path) -> list[Path]:
    """Checkpoint folders: the run folder itself, or folders in it."""
    folders = [out, *(path for path in sorted(out.iterdir()) if path.is_dir() and not path.name.startswith("."))]
    return [path for path in folders if (path / METRICS).is_file() or (path / PROVENANCE).is_file()]


def _of_checkpoint(out: Path, folder: Path) -> Iterator[Finding]:
    for name in damaged_states(folder):
        said = "does not match its checksum; training goes on from the one before it"
        yield Finding(_name(out, folder / name), said)
    if not (folder / ENCODER).is_dir():
        if not saved_steps(folder):
            yield Finding(_name(out, folder), "neither an encoder nor a state to resume from; train again")
        return
    from wsi_lmc.encoder import load_encoder, resolve_device  # torch only where there is an encoder

    try:
        sha256 = load_encoder(str(folder), resolve_device("cpu")).sha256
        stated = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["encoder_sha256"]
    except (StoreError, UsageError) as error:
        yield Finding(_name(out, folder / ENCODER), f"{error.found}; train with --resume, or restore it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding(_name(out, folder / PROVENANCE), f"cannot be read ({error}); train with --resume, or restore it")
    else:
        if sha256 != stated:
            yield Finding(_name(out, folder / ENCODER), f"is not the encoder that {PROVENANCE} tells of")


def _left_behind(run: _Run) -> Iterator[Finding]:
    """What nobody needs any more."""
    gone = set(leftovers(run.out))
    if not run.busy:  # of unknown owners: but somebody may be at work from another machine
        gone |= set((run.out / TEMPORARY).glob("*"))
    for path in sorted(gone):
        yield Finding(_name(run.out, path), "left behind by a process that is gone", "remove")
    for path in sorted((run.out / PARTS).glob("*")):
        record = read_record(record_path(run.out, "embed", path.name))
        if record is not None and record.state in ("done", "empty") and f"embed-{path.name}" not in run.busy:
            yield Finding(_name(run.out, path), "parts of a slide that is done", "remove")


def _notes(run: _Run) -> Iterator[str]:
    if run.busy:
        yield f"{len(run.busy)} slides are in work, and were left out"
    if run.unreachable:
        count = len(set(run.unreachable))
        yield f"{count} stores could not be compared with their slides or tiles, which are not where they were"
    for stage in STAGES:
        recorded = {path.stem for path in (run.out / RECORDS / stage).glob("*.json")}
        left = planned_slides(run.out, stage) - recorded
        if left:
            yield f"{stage}: {len(left)} slides are still to do; the same command goes on with them"
        failed = sum(1 for slide_id in recorded if _state(run.out, stage, slide_id) == "failed")
        if failed:
            yield f"{stage}: {failed} slides failed; see {SLIDES}, then run 'wsi-lmc retry-failed'"


def _state(out: Path, stage: Stage, slide_id: str) -> str:
    record = read_record(record_path(out, stage, slide_id))
    return record.state if record is not None else ""


def _is_picture(path: Path) -> bool:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return False
    whole = content[-2:].tobytes() == b"\xff\xd9"  # decoders are content with half a JPEG
    return whole and cv2.imdecode(content, cv2.IMREAD_COLOR) is not None


def _name(out: Path, path: Path) -> str:
    return path.relative_to(out).as_posix() or "."
