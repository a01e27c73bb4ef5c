"""One stage of one slide: its record, its store, and whether they are of each other, of the slide, of the settings."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsi_lmc.config import RUN_FILE
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FEATURE_FILES, IMPORTED, FeatureStore
from wsi_lmc.imagelists import is_list, list_path, read_list
from wsi_lmc.inspection import problems_of_features, problems_of_tiles
from wsi_lmc.provenance import file_fingerprint
from wsi_lmc.runfolder import read_record, record_path
from wsi_lmc.steps.outcome import Outcome, Stage
from wsi_lmc.steps.pack import images_fingerprint
from wsi_lmc.steps.sources import FROM_SLIDE
from wsi_lmc.steps.tile import settings_fingerprint
from wsi_lmc.tilestore import TileStore
from wsi_lmc.verify.finding import Finding, Remedy, RunView, name_in
from wsi_lmc.verify.packs import PACKED, look_at_pack

STORES: dict[Stage, str] = {"tile": "tiles", "embed": "features"}
"""Folder of each stage's stores."""
_INSPECT: dict[Stage, Callable[[Path], list[str]]] = {"tile": problems_of_tiles, "embed": problems_of_features}


def look_at_slide(run: RunView, of: tuple[Stage, str]) -> list[Finding]:
    """One stage of one slide: its record, its store, and whether they are of each other."""
    stage, slide_id = of
    if f"{stage}-{slide_id}" in run.busy:
        return []
    path = run.out / STORES[stage] / f"{slide_id}.zarr"
    record_file = record_path(run.out, stage, slide_id)
    record = read_record(record_file)
    name = name_in(run.out, path)
    if path.is_dir():
        damage = [line.partition(": ") for line in _INSPECT[stage](path)]
        if damage:
            return [Finding(f"{name}/{part}", said, "anew", of) for part, _, said in damage]
    if record is None or (record.slide_id, record.stage) != (slide_id, stage):
        said = "cannot be read" if record_file.is_file() else "missing, but there is a store"
        return [Finding(name_in(run.out, record_file), said, "again", of)]
    if not path.is_dir():
        expected = record.state in ("done", "empty")
        return [Finding(name, f"missing, but recorded as {record.state}", "again", of)] if expected else []
    check = _of_tile_store if stage == "tile" else _of_feature_store
    return [Finding(name, said, remedy, of) for said, remedy in check(run, record, path)]


def _of_tile_store(run: RunView, record: Outcome, path: Path) -> Iterator[tuple[str, Remedy]]:
    store = TileStore.open(path)
    yield from _of_any_store(run, record, store.attributes, len(store))
    yield from (look_at_pack if PACKED in store.attributes else _of_tiled)(run, record, store)


def _of_tiled(run: RunView, record: Outcome, store: TileStore) -> Iterator[tuple[str, Remedy]]:
    """What stands beside the tiles of a slide, and the settings they were cut with."""
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


def _of_feature_store(run: RunView, record: Outcome, path: Path) -> Iterator[tuple[str, Remedy]]:
    store = FeatureStore.open(path)
    attributes = store.attributes
    yield from _of_any_store(run, record, attributes, len(store.valid))
    if IMPORTED in attributes:
        return
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


def _of_any_store(run: RunView, record: Outcome, attributes: Any, count: int) -> Iterator[tuple[str, Remedy]]:  # noqa: ANN401  JSON
    if attributes["slide"]["id"] != record.slide_id:
        yield f"holds slide {attributes['slide']['id']}", "anew"
    if record.state in ("done", "empty") and (count != record.tiles or (record.state == "empty") != (count == 0)):
        yield f"holds {count} tiles, but is recorded as {record.state} with {record.tiles}", "again"
    entry = run.entries.get(record.slide_id)
    source = None if entry is None else list_path(run.out, entry.slide_id) if is_list(entry.path) else entry.path
    if IMPORTED in attributes and source is not None and source.suffix not in FEATURE_FILES:
        source = None  # the slide itself, which its features were not made of here
    if source is None or not source.is_file():
        run.unreachable.append(record.slide_id)
    elif _fingerprint_of(source) not in (attributes["slide_fingerprint"], None):
        yield (
            "made from another version of this slide; run the command again with --overwrite, or restore the slide",
            "",
        )


def _fingerprint_of(source: Path) -> str | None:
    """Of a slide as it is now; None of images whose list is damaged, which is a finding of its own."""
    if not is_list(source):
        return file_fingerprint(source)
    try:
        return images_fingerprint(read_list(source))
    except UsageError:
        return None


def look_at_encoders(run: RunView) -> Iterator[Finding]:
    """Whether all features are of one encoder."""
    names: dict[str, str] = {}
    for path in sorted((run.out / STORES["embed"]).glob("*.zarr")):
        if _opens(FeatureStore, path):
            encoder = FeatureStore.open(path).attributes["encoder"]
            names.setdefault(str(encoder.get("sha256") or encoder.get("name")), path.name)
    if len(names) > 1:
        yield Finding(STORES["embed"], f"features of {len(names)} encoders, such as {', '.join(names.values())}")


def _is_picture(path: Path) -> bool:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return False
    whole = content[-2:].tobytes() == b"\xff\xd9"  # decoders are content with half a JPEG
    return whole and cv2.imdecode(content, cv2.IMREAD_COLOR) is not None
