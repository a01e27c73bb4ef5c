"""One slide looked at before any work: what `tile` would record of it, and what else is worth knowing beforehand.

It is opened, calibrated and its grid laid by the very functions that `tile` calls, so the answers are the same; no
pixel is decoded beyond the overview and what opening compares. Nothing is written.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from wsi_lmc.cohort import SlideEntry, safe_id
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import GridConfig, TileGrid, place_tiles
from wsi_lmc.slide import (
    MppStatement,
    Slide,
    SlideGeometry,
    agree,
    check_file,
    look_into,
)
from wsi_lmc.steps.outcome import Outcome, Stage, succeeded
from wsi_lmc.steps.tile import TileConfig, TileTask, open_task_slide, plan_tiles, refuse_duplicate
from wsi_lmc.tilestore import Codec, StoredCodec
from wsi_lmc.tiling import how_stored
from wsi_lmc.tissue import TissueMask
from wsi_lmc.units import Mpp

_ISOTROPIC = 0.02  # x and y of one slide, relative
_FORETOLD = ("state", "reason", "tiles", "mpp", "mpp_source")


@dataclass(frozen=True)
class AuditTask:
    """Look at one slide as ``tile`` would with ``config``; ``mask`` replaces tissue detection, as there."""

    entry: SlideEntry
    config: TileConfig
    mask: Path | None = None
    overviews: bool = True

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.entry.slide_id

    @property
    def stage(self) -> Stage:
        """The stage whose outcome is foretold."""
        return "tile"


@dataclass(frozen=True)
class Cutting:
    """What cutting a slide takes.

    ``level_px`` and ``tile_px`` are pixels of one tile, as read and as stored; ``kept_bytes`` what the slide's own JPEG
    tiles take, where they are kept; ``decoded`` whether this package decodes, or else a library, a tile at a time.
    """

    stored: StoredCodec
    level_px: int
    tile_px: int
    reduction: str
    decoded: bool
    kept_bytes: int = 0


@dataclass(frozen=True)
class Audit(Outcome):
    """The outcome that `tile` would record, and the facts around it.

    ``tiles`` counts by tissue where ``counted``, else all places of the grid, which are ``places``. ``statements`` are
    all that is said of the pixel size, by the file, the libraries and the user.
    """

    file_bytes: int = 0
    vendor: str = ""
    reader: str = ""
    width: int = 0
    height: int = 0
    downsamples: tuple[float, ...] = ()
    statements: tuple[MppStatement, ...] = ()
    places: int = 0
    counted: bool = False
    cutting: Cutting | None = None
    notes: tuple[str, ...] = ()

    @property
    def mpp_agrees(self) -> bool:
        """Whether all that is said of the pixel size agrees within 2 %; also where nothing is said."""
        return agree(self.statements)


def audit_slide(task: AuditTask) -> Audit:
    """Look at one slide; a slide that `tile` would refuse is an audit, too, with all that could be found out."""
    began = time.monotonic()
    audit = _look_at_file(task)
    try:
        refuse_duplicate(task.entry)
    except SlideError as error:
        audit = _refused(audit, error)
    return replace(audit, seconds=time.monotonic() - began)


def _look_at_file(task: AuditTask) -> Audit:
    audit = Audit(task.slide_id, "tile", "failed", notes=_on_name(task.entry))
    try:
        check_file(task.entry.path)
    except SlideError as error:
        return _refused(audit, error)
    return _look_at_slide(task, _with_facts(audit, task))


def _with_facts(audit: Audit, task: AuditTask) -> Audit:
    """What is known of a file without calibrating it."""
    facts = look_into(task.entry.path)
    finest = facts.level_sizes[0] if facts.level_sizes else None
    return replace(
        audit,
        file_bytes=task.entry.path.stat().st_size,
        vendor=facts.vendor,
        width=finest.width if finest else 0,
        height=finest.height if finest else 0,
        downsamples=tuple(finest.width / max(level.width, 1) for level in facts.level_sizes) if finest else (),
        statements=(*facts.statements, *_by_user(task)),
    )


def _look_at_slide(task: AuditTask, audit: Audit) -> Audit:
    as_tile = TileTask(task.entry, Path(), task.config, task.mask)
    try:
        with open_task_slide(as_tile) as slide:
            audit = replace(audit, vendor=slide.info.vendor, reader=slide.info.reader)
            whole = _whole_grid(slide.geometry, task.config.grid)
            grid = plan_tiles(as_tile, slide)[0] if task.overviews else whole
            foretold = succeeded(task.slide_id, "tile", asdict(slide.info), len(grid))
            return replace(
                audit,
                **{name: getattr(foretold, name) for name in _FORETOLD},
                downsamples=slide.geometry.downsamples,
                places=len(whole),
                counted=task.overviews,
                cutting=_cutting(slide, grid, task.config.codec),
                notes=(*audit.notes, *_on_pixels(slide.geometry.mpp, len(whole))),
            )
    except SlideError as error:
        return _refused(audit, error)


def _whole_grid(geometry: SlideGeometry, config: GridConfig) -> TileGrid:
    """Every place of the grid, and the limit on their number, before anything is decoded."""
    everything = TissueMask(np.ones((1, 1), np.bool_), (float(geometry.size.width), float(geometry.size.height)), None)
    return place_tiles(everything, geometry, replace(config, min_tissue=0.0))


def _cutting(slide: Slide, grid: TileGrid, codec: Codec) -> Cutting:
    sampling = grid.sampling
    plan = slide.plan(grid.origins, sampling)
    stored, native = how_stored(slide, plan, codec)
    return Cutting(
        stored,
        sampling.read.width * sampling.read.height,
        sampling.tile.width * sampling.tile.height,
        plan.reduction,
        slide.direct is not None,
        sum(native.lengths(slice(None))) if native is not None else 0,
    )


def _refused(audit: Audit, error: SlideError) -> Audit:
    reason = f"{error.found}; expected {error.expected}"
    return replace(audit, state="failed", code=error.code, reason=reason, remedy=error.remedy, tiles=0)


def _by_user(task: AuditTask) -> tuple[MppStatement, ...]:
    given = (("manifest", task.entry.mpp), ("option --mpp", task.config.mpp))
    return tuple(MppStatement(source, str(mpp), str(mpp)) for source, mpp in given if mpp is not None)


def _on_name(entry: SlideEntry) -> tuple[str, ...]:
    """A name that is none for a file of any system is no error: the slide gets another id, which is good to know."""
    safe = safe_id(entry.path.stem)
    unsafe = safe != entry.path.stem and entry.slide_id == safe
    return (f"its name is unsafe as an id: it will be called {safe}",) if unsafe else ()


def _on_pixels(mpp: Mpp, places: int) -> tuple[str, ...]:
    oblong = f"oblong pixels: {mpp.x:.4g} x {mpp.y:.4g} um"
    found = (oblong,) if mpp.anisotropy > _ISOTROPIC else ()
    return found if places else (*found, "smaller than a tile")
