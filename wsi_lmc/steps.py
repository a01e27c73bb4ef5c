"""The units of work: one slide, one stage. Picklable tasks in, a small outcome out, harmless when run twice."""

import hashlib
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_doc import Doc

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.contours import mask_to_polygons, polygons_to_mask, read_geojson, to_geojson
from wsi_lmc.errors import SlideCode, SlideError, StoreError
from wsi_lmc.featurestore import FeatureStore, write_features
from wsi_lmc.grid import GridConfig, TileGrid, place_tiles
from wsi_lmc.overview import draw_overview, write_jpeg
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.publish import exclusive, publish_text, publishing
from wsi_lmc.slide import GivenMpp, Overview, ReaderName, Slide, open_slide
from wsi_lmc.slide.calibration import parse_mpp
from wsi_lmc.tilestore import Codec, TileRows, TileStore
from wsi_lmc.tiling import cut_tiles, describe_tiles, read_blocks
from wsi_lmc.tissue import TissueConfig, TissueMask, find_tissue
from wsi_lmc.zarrio import Attributes

if TYPE_CHECKING:
    from wsi_lmc.embedding import EmbedConfig
    from wsi_lmc.encoder import Encoder

State = Literal["done", "empty", "failed", "skipped"]
Stage = Literal["tile", "embed"]


@dataclass(frozen=True)
class Outcome:
    """How one slide came out of one stage. ``reason`` and ``remedy`` are for a person, ``code`` is stable."""

    slide_id: str
    stage: Stage
    state: State
    code: str = ""
    reason: str = ""
    remedy: str = ""
    tiles: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    seconds: float = 0.0
    fresh: bool = True


@dataclass(frozen=True)
class TileConfig:
    """How slides become tiles."""

    grid: GridConfig = field(default_factory=GridConfig)
    tissue: TissueConfig = field(default_factory=TissueConfig)
    reader: Annotated[ReaderName, Doc("Library that reads: auto takes OpenSlide, and tiffslide where that cannot.")] = (
        "auto"
    )
    codec: Annotated[Codec, Doc("lossless (zstd), or jpeg (quality 95, 4:4:4): about a quarter of the size.")] = (
        "lossless"
    )
    mpp: Annotated[float | None, Doc("Microns per level-0 pixel of slides whose files state none.")] = None


@dataclass(frozen=True)
class TileTask:
    """Cut one slide into the run folder ``out``."""

    entry: SlideEntry
    out: Path
    config: TileConfig
    mask: Path | None = None
    overwrite: bool = False

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.entry.slide_id

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "tile"


@dataclass(frozen=True)
class EmbedTask:
    """Embed one slide into ``out``: from ``store`` where given, else straight from the slide that ``slide`` names."""

    slide_id: str
    out: Path
    encoder: str
    config: "EmbedConfig"
    store: Path | None = None
    slide: TileTask | None = None
    overwrite: bool = False

    @property
    def stage(self) -> Stage:
        """Which stage this belongs to."""
        return "embed"


def tile_slide(task: TileTask) -> Outcome:
    """Cut one slide: contour, overview, then the store, each published whole; nothing where it is done already.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
    """
    began = time.monotonic()
    _refuse_duplicate(task.entry)
    final = task.out / "tiles" / f"{task.slide_id}.zarr"
    with exclusive(task.out, f"tile-{task.slide_id}"):
        with _open(task) as slide:
            identity = _identity(task)
            done = _finished_tiles(final, identity, task.overwrite)
            if done is not None:
                return _outcome(task.slide_id, "tile", done.attributes, len(done), began, fresh=False)
            grid, mask, overview = _plan(task, slide)
            _publish_eyes(task, slide, grid, (mask, overview))
            attributes: Attributes = {"tissue": _describe_tissue(task.config.tissue, mask), **identity}
            with publishing(task.out, final) as draft:
                cut_tiles(slide, grid, draft, task.config.codec, attributes)
            described: Attributes = {"slide": asdict(slide.info)}
        return _outcome(task.slide_id, "tile", described, len(grid), began)


def embed_slide(task: EmbedTask) -> Outcome:
    """Embed one slide from its tile store, or straight from the slide with the same pixels.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
        StoreError: the tile store cannot be read.
    """
    from wsi_lmc.embedding import check_mpp, embed_blocks, store_blocks  # noqa: PLC0415  torch only where it is needed

    began = time.monotonic()
    final = task.out / "features" / f"{task.slide_id}.zarr"
    encoder = _encoder(task.encoder, task.config.device, task.config.bf16)
    with exclusive(task.out, f"embed-{task.slide_id}"):
        if task.store is not None:
            store = TileStore.open(task.store)
            attributes = _feature_attributes(task, encoder, store.attributes, store.fingerprint)
            done = _finished_features(final, attributes, task.overwrite)
            if done is not None:
                return _outcome(task.slide_id, "embed", done.attributes, len(done), began, fresh=False)
            check_mpp(encoder, store.mpp.mean, task.config)
            features = embed_blocks(encoder, store_blocks(store), len(store), task.config)
            rows = TileRows(store.origins, store.tissue_fraction, store.valid)
        else:
            assert task.slide is not None, "a task names a store or a slide"
            _refuse_duplicate(task.slide.entry)
            with _open(task.slide) as slide:
                attributes = _feature_attributes(task, encoder, {"slide": asdict(slide.info)}, _identity(task.slide))
                done = _finished_features(final, attributes, task.overwrite)
                if done is not None:
                    return _outcome(task.slide_id, "embed", done.attributes, len(done), began, fresh=False)
                grid, _, _ = _plan(task.slide, slide)
                check_mpp(encoder, grid.sampling.effective_mpp.mean, task.config)
                attributes["tile"] = describe_tiles(grid)
                rows, features = _embed_grid(slide, grid, encoder, task.config)
        with publishing(task.out, final) as draft:
            write_features(draft, features, rows, attributes)
    return _outcome(task.slide_id, "embed", attributes, len(features), began)
