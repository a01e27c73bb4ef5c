"""One slide's foreign features into a feature store: picklable, idempotent, published whole."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import SlideError, StoreError
from wsi_lmc.featurestore import IMPORTED, FeatureStore, write_features
from wsi_lmc.importing.config import ImportConfig
from wsi_lmc.importing.foreign import Files, Foreign, Layout
from wsi_lmc.importing.geometry import measured_stride
from wsi_lmc.importing.reading import check_place, read_foreign
from wsi_lmc.provenance import file_fingerprint, fingerprint, to_json
from wsi_lmc.publish import publishing, working
from wsi_lmc.slide import GivenMpp, MppStatement, calibrate, parse_mpp
from wsi_lmc.slide.calibration import Calibration
from wsi_lmc.steps.outcome import Outcome, Stage, still_valid, succeeded
from wsi_lmc.steps.tile import refuse_duplicate
from wsi_lmc.tilestore import TileRows, Validity
from wsi_lmc.tiling import MAX_UNREADABLE_SHARE
from wsi_lmc.units import Mpp
from wsi_lmc.zarrio import Attributes, damaged_arrays

UNKNOWN = "unknown"
_AGREE = 0.02


@dataclass(frozen=True)
class ImportTask:
    """Import one slide into the run folder ``out``."""

    entry: SlideEntry
    files: Files
    out: Path
    layout: Layout
    encoder: str
    config: ImportConfig
    overwrite: bool = False

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.entry.slide_id

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to: whoever asks for features asks for this one."""
        return "embed"

    @property
    def result(self) -> Path:
        """The feature store that is written."""
        return self.out / "features" / f"{self.slide_id}.zarr"

    @property
    def of_file(self) -> str:
        """Source of a pixel size that the files themselves state."""
        return f"{self.layout} (mpp)"


def import_slide(task: ImportTask) -> Outcome:
    """Import one slide; nothing where that is done already, from the same files and statements.

    Raises:
        SlideError: the slide cannot be imported, for the reason its code names.
    """
    began = time.monotonic()
    with working(task.out, f"embed-{task.slide_id}"):
        refuse_duplicate(task.entry)
        finished = _finished(task)
        if finished is not None:
            outcome = succeeded(task.slide_id, "embed", finished.attributes["slide"], len(finished))
            return replace(outcome, fresh=False, seconds=time.monotonic() - began)
        found = read_foreign(task.files, task.config)
        features, valid = _judged(found)
        calibration = decide_mpp(found.patches.statements(task.of_file), task.entry.mpp, task.config.mpp)
        attributes = describe(task, found, calibration) | _identity(task, calibration.source)
        rows = TileRows(found.origins, np.full(len(features), np.nan, np.float32), valid)
        with publishing(task.out, task.result) as draft:
            write_features(draft, features, rows, attributes)
    outcome = succeeded(task.slide_id, "embed", attributes["slide"], len(features))
    return replace(outcome, seconds=time.monotonic() - began)


def decide_mpp(stated: tuple[MppStatement, ...], manifest: str | None, option: float | None) -> Calibration:
    """Microns per level-0 pixel: of the manifest, of the file, of the option, in that order; all there are must agree.

    Features cannot be scaled afterwards: so nothing overrules a file here.

    Raises:
        SlideError: ``mpp_missing``, ``mpp_invalid`` or ``mpp_conflict``.
    """
    given: GivenMpp | None = None
    if manifest is not None:
        value = parse_mpp(manifest)
        if value is None:
            raise SlideError(
                "mpp_invalid", "mpp in the manifest", "microns per pixel, 0.05 to 10", "Correct it, or leave it empty."
            )
        given = GivenMpp(value, "manifest")
    elif option is not None:
        given = GivenMpp(option, "option --mpp")
    known = calibrate(stated, None) if stated else None
    if known is not None and given is not None and not _agrees((known.mpp.x, known.mpp.y), given.value):
        raise SlideError(
            "mpp_conflict",
            f"the file states {known.mpp.mean:.4g} um/px at level 0, but {given.source} says {given.value:.4g}",
            "agreement within 2 %",
            "Find out which is right; drop the other, or have the features made again.",
        )
    return calibrate(stated, given)


def describe(task: ImportTask, found: Foreign, calibration: Calibration) -> Attributes:
    """What the store says of its slide, tiles and encoder; what nobody knows is left out, or None.

    The encoder's SHA-256 is None: a name is all that the files know of it. Tiles have the pixels the patches were cut
    with.
    """
    patches, mpp = found.patches, calibration.mpp
    slide: Attributes = {"id": task.slide_id, "mpp": [mpp.x, mpp.y], "mpp_source": calibration.source}
    if patches.size is not None:
        slide |= {"width": patches.size.width, "height": patches.size.height}
    target = mpp.scaled(patches.footprint[0] / patches.px, patches.footprint[1] / patches.px)
    tile: Attributes = {
        "px": patches.px,
        "mpp": target.mean,
        "effective_mpp": [target.x, target.y],
        "footprint": list(patches.footprint),
        "stride": patches.stride or measured_stride(found.origins, patches),
    }
    if patches.level is not None:
        tile["level"] = patches.level
    encoder = {
        "name": task.encoder,
        "architecture": None,
        "sha256": None,
        "mode": None,
        "trained_mpp": None,
        "dtype": str(found.features.dtype),
        "normalised": UNKNOWN,
    }
    return {"slide": slide, "tile": tile, "encoder": encoder, IMPORTED: task.layout}


def _judged(found: Foreign) -> tuple[np.ndarray, UInt8[np.ndarray, " n"]]:
    """Features and the validity of each: rows that are not finite become zeros that nobody reads.

    Raises:
        SlideError: ``unreadable_tiles``, where there are more of these than there may be.
    """
    patches, valid = found.patches, np.full(len(found.origins), Validity.OK, np.uint8)
    if patches.size is not None:
        ends = found.origins + np.asarray(patches.footprint)
        valid[(ends[:, 0] > patches.size.width + 0.5) | (ends[:, 1] > patches.size.height + 0.5)] = Validity.PADDED
    broken = ~np.isfinite(found.features).all(axis=1)
    count = int(broken.sum())
    if count > MAX_UNREADABLE_SHARE * len(valid):
        raise SlideError(
            "unreadable_tiles",
            f"{count} of {len(valid)} rows of features hold numbers that are not finite",
            f"{MAX_UNREADABLE_SHARE:.0%} at most",
            "Make these features again, in float32.",
        )
    valid[broken] = Validity.UNREADABLE
    return np.where(broken[:, None], found.features.dtype.type(0), found.features) if count else found.features, valid


def _identity(task: ImportTask, mpp_source: str) -> Attributes:
    """Fingerprints of the files and of everything that was stated beside them, and used.

    A pixel size that the files state makes --mpp, which then can but agree, no part of it: a run that failed for want
    of it in some slides goes on with it.
    """
    files, given = task.files, task.entry.mpp if task.entry.mpp is not None else task.config.mpp
    settings = {
        "layout": task.layout,
        "encoder": task.encoder,
        "mpp": None if mpp_source == task.of_file else given,
        "patches": to_json((task.config.patch_size, task.config.downsample)),
        "coordinates": file_fingerprint(files.coordinates) if files.coordinates is not None else None,
    }
    return {"slide_fingerprint": file_fingerprint(files.features), "config_fingerprint": fingerprint(settings)}


def _finished(task: ImportTask) -> FeatureStore | None:
    """The published features, where they are what would be made now; asked to overwrite, damaged ones are not."""
    for path in filter(None, (task.files.features, task.files.coordinates)):
        check_place(path, task.files.folders)
    try:
        store = FeatureStore.open(task.result)
    except StoreError:
        return None
    slide = store.attributes["slide"]
    of_file = slide["mpp_source"] == task.of_file and task.entry.mpp is None and _agrees(slide["mpp"], task.config.mpp)
    wanted = _identity(task, task.of_file if of_file else "")
    if not still_valid(f"features/{task.result.name}", store.attributes, wanted, task.overwrite):
        return None
    return None if task.overwrite and damaged_arrays(store.path, store.attributes) else store


def _agrees(known: Sequence[float], given: float | None) -> bool:
    return given is None or abs(Mpp(known[0], known[1]).mean / given - 1.0) <= _AGREE
