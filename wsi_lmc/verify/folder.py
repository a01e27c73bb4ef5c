"""What belongs to no single slide: the run folder's own files, checkpoints, and what was left behind."""

import json
from collections.abc import Iterator
from pathlib import Path

from wsi_lmc.checkpoint import METRICS, damaged_states, saved_steps
from wsi_lmc.config import RUN_FILE, read_config
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.inspection import problems_of_cache
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import TEMPORARY, leftovers
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
from wsi_lmc.stainstore import CACHE
from wsi_lmc.steps.outcome import Stage
from wsi_lmc.steps.parts import FOLDER as PARTS
from wsi_lmc.trainedslides import PROVENANCE
from wsi_lmc.verify.finding import Finding, RunView, name_in

_ENCODER = "encoder"


def look_at_folder(run: RunView) -> Iterator[Finding]:
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
            yield Finding(name_in(out, path), "cannot be read; run the command again", "remove")
    table = out / SLIDES
    if not run.busy and (not table.is_file() or table.read_bytes() != derive_table(out).encode()):
        yield Finding(SLIDES, "is not what the records give", "table")


def checkpoints(out: Path) -> list[Path]:
    """Checkpoint folders: the run folder itself, or folders in it."""
    folders = [out, *(path for path in sorted(out.iterdir()) if path.is_dir() and not path.name.startswith("."))]
    return [path for path in folders if (path / METRICS).is_file() or (path / PROVENANCE).is_file()]


def look_at_checkpoint(out: Path, folder: Path) -> Iterator[Finding]:
    """States by their checksums, the encoder by the SHA-256 of its weights."""
    for name in damaged_states(folder):
        said = "does not match its checksum; training goes on from the one before it"
        yield Finding(name_in(out, folder / name), said)
    if not (folder / _ENCODER).is_dir():
        if not saved_steps(folder):
            yield Finding(name_in(out, folder), "neither an encoder nor a state to resume from; train again")
        return
    from wsi_lmc.encoder import load_encoder, resolve_device  # torch only where there is an encoder

    try:
        sha256 = load_encoder(str(folder), resolve_device("cpu")).sha256
        stated = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["encoder_sha256"]
    except (StoreError, UsageError) as error:
        yield Finding(name_in(out, folder / _ENCODER), f"{error.found}; train with --resume, or restore it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding(
            name_in(out, folder / PROVENANCE), f"cannot be read ({error}); train with --resume, or restore it"
        )
    else:
        if sha256 != stated:
            yield Finding(name_in(out, folder / _ENCODER), f"is not the encoder that {PROVENANCE} tells of")


def look_at_caches(out: Path) -> Iterator[Finding]:
    """Stain vectors, which are estimated again where there are none."""
    for path in sorted((out / CACHE).glob("*.zarr")):
        damage = problems_of_cache(path)
        if damage:
            yield Finding(name_in(out, path), "; ".join(damage), "remove")


def look_for_leftovers(run: RunView) -> Iterator[Finding]:
    """What nobody needs any more."""
    gone = set(leftovers(run.out))
    if not run.busy:  # of unknown owners: but somebody may be at work from another machine
        gone |= set((run.out / TEMPORARY).glob("*"))
    for path in sorted(gone):
        yield Finding(name_in(run.out, path), "left behind by a process that is gone", "remove")
    for path in sorted((run.out / PARTS).glob("*")):
        record = read_record(record_path(run.out, "embed", path.name))
        if record is not None and record.state in ("done", "empty") and f"embed-{path.name}" not in run.busy:
            yield Finding(name_in(run.out, path), "parts of a slide that is done", "remove")


def notes(run: RunView) -> Iterator[str]:
    """What is no fault, but should be known."""
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
