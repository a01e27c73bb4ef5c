"""Where the tiles to be embedded come from: a tile store, or a slide whose tiles are read on the fly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from wsi_lmc.embedding import store_blocks
from wsi_lmc.engine import Block, Valid
from wsi_lmc.grid import TileGrid
from wsi_lmc.provenance import fingerprint
from wsi_lmc.slide import Slide, check_file
from wsi_lmc.steps.tile import TileTask, open_task_slide, plan_tiles, refuse_duplicate, tile_identity
from wsi_lmc.threads import Threads, threads_of_process
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tiling import TILES_PER_BLOCK, describe_tiles, read_blocks
from wsi_lmc.zarrio import Attributes

FROM_SLIDE = "from slide"
_GRIDS = 8


@dataclass(frozen=True)
class Source:
    """A slide's tiles; ``rows.valid`` is what is known before they are read, ``blocks`` reads some rows of them."""

    rows: TileRows
    tile_mpp: float
    described: Attributes
    blocks: Callable[[range], Iterator[tuple[Block, Valid]]]

    def __len__(self) -> int:
        return len(self.rows.origins)


@contextmanager
def open_source(source: Path | TileTask) -> Iterator[Source]:
    """Open a tile store, or a slide to be read by a task's rules; both give the same pixels.

    Raises:
        SlideError: the slide cannot be processed, for the reason its code names.
        StoreError: the tile store cannot be read.
    """
    if isinstance(source, Path):
        store = TileStore.open(source)
        rows = TileRows(store.origins, store.tissue_fraction, store.valid)
        described = {"slide": store.attributes["slide"], "tile": store.attributes["tile"]}
        with Threads(threads_of_process()) as threads:
            yield Source(rows, store.mpp.mean, described, lambda part: store_blocks(store, part, threads))
        return
    with open_task_slide(source) as slide:
        grid = _grid_of(source, slide)
        valid = grid.padded.astype("uint8")
        yield Source(
            TileRows(grid.origins, grid.tissue_fraction, valid),
            grid.sampling.effective_mpp.mean,
            {"slide": asdict(slide.info), "tile": describe_tiles(slide, grid)},
            lambda part: read_blocks(slide, grid.part(part), TILES_PER_BLOCK, of=len(grid)),
        )


def source_identity(source: Path | TileTask) -> Attributes:
    """What decides a slide's tiles: its own fingerprint, the tile store's, and the settings of tiles not yet cut.

    Raises:
        SlideError: the slide is a duplicate, or no file that can be read.
        StoreError: the tile store cannot be read.
    """
    if isinstance(source, Path):
        store = TileStore.open(source)
        return {"slide_fingerprint": store.attributes["slide_fingerprint"], "tile_store": store.fingerprint}
    refuse_duplicate(source.entry)
    check_file(source.entry.path)
    of_tiles = tile_identity(source)
    slide = of_tiles.pop("slide_fingerprint")
    return {"slide_fingerprint": slide, "tile_store": FROM_SLIDE, "tile": of_tiles}


_grids: dict[str, TileGrid] = {}
_grids_lock = Lock()


def _grid_of(task: TileTask, slide: Slide) -> TileGrid:
    """A slide's grid; the last few are kept, since parts of a large slide ask for it again and again."""
    key = fingerprint(tile_identity(task))
    with _grids_lock:
        known = _grids.get(key)
    if known is not None:
        return known
    grid, _, _ = plan_tiles(task, slide)
    with _grids_lock:
        if len(_grids) >= _GRIDS:
            del _grids[next(iter(_grids))]
        _grids[key] = grid
    return grid
