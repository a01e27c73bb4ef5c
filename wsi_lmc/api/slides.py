"""From a slide to its tiles: open it, find tissue, place tiles, cut them."""

from pathlib import Path
from typing import Unpack

from wsi_lmc.api.settings import GridSettings, TissueSettings
from wsi_lmc.cohort import safe_id
from wsi_lmc.config import build
from wsi_lmc.errors import StoreError
from wsi_lmc.grid import GridConfig, TileGrid
from wsi_lmc.grid import place_tiles as lay_grid
from wsi_lmc.provenance import array_sha256, file_fingerprint, fingerprint
from wsi_lmc.publish import prepare_output, publishing, working
from wsi_lmc.slide import GivenMpp, ReaderName, ReadOptions, Resample, Slide
from wsi_lmc.slide import open_slide as open_calibrated
from wsi_lmc.steps.outcome import still_valid
from wsi_lmc.tilestore import Codec, TileStore
from wsi_lmc.tiling import cut_tiles as write_tiles
from wsi_lmc.tiling import describe_tiles
from wsi_lmc.tissue import TissueConfig, TissueMask
from wsi_lmc.tissue import find_tissue as find_mask
from wsi_lmc.zarrio import Attributes


def open_slide(
    path: str | Path,
    mpp: float | None = None,
    reader: ReaderName = "auto",
    resample: Resample = "dct",
    threads: int = 1,
) -> Slide:
    """Open a slide, calibrated; a context manager, which closes it.

    Args:
        path: of the slide; its id is the file's name without suffix, made safe.
        mpp: microns per level-0 pixel, for a file that states none; one that contradicts the file is refused.
        reader: what decodes it; auto decodes JPEG tiles directly where that gives OpenSlide's pixels.
        resample: what reduces tiles by 2, 4 or 8: the JPEG decoder (dct), or means over area.
        threads: that decode; they never change a pixel.

    Raises:
        SlideError: it cannot be opened or its pixel size is unknown, for the reason its ``code`` names.
    """
    given = None if mpp is None else GivenMpp(mpp, "argument mpp")
    return open_calibrated(Path(path), safe_id(Path(path).stem), given, ReadOptions(reader, resample, threads))


def find_tissue(slide: Slide, **settings: Unpack[TissueSettings]) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: the open slide.
        settings: flags of ``wsi-lmc tile`` about tissue, such as ``min_object_um2=50_000.0`` (in um2).

    Returns:
        ``mask``, bool (y, x), of which a pixel covers ``downsample`` level-0 pixels along x and y.

    Raises:
        UsageError: an unknown setting, or a value out of its range.
    """
    return find_mask(slide, build(TissueConfig, settings, "find_tissue"))[0]


def place_tiles(slide: Slide, tissue: TissueMask, **settings: Unpack[GridSettings]) -> TileGrid:
    """Lay one grid over the slide, and keep the tiles with enough tissue.

    Args:
        slide: the open slide.
        tissue: of this slide, from :func:`find_tissue` or made by hand.
        settings: flags of ``wsi-lmc tile`` about the grid, such as ``tile_px=224`` (target pixels), ``tile_mpp=1.0``
            (microns per target pixel) or ``min_tissue=0.1`` (share of a tile's area).

    Returns:
        ``origins``, int32 (N, 2): x, y of each tile's top-left corner in level-0 pixels, row-major over (y, x).

    Raises:
        SlideError: ``too_coarse`` or ``too_large``.
        UsageError: an unknown setting, or a value out of its range.
    """
    return lay_grid(tissue, slide.geometry, build(GridConfig, settings, "place_tiles"))


def cut_tiles(
    slide: Slide, grid: TileGrid, out: str | Path, codec: Codec = "auto", overwrite: bool = False
) -> TileStore:
    """Cut a slide's tiles into ``out/tiles/<slide_id>.zarr``; nothing is done where the same tiles are there.

    Args:
        slide: the open slide.
        grid: of this slide, from :func:`place_tiles`.
        out: a run folder, such as :func:`wsi_lmc.train` and :func:`wsi_lmc.embed` take.
        codec: how pixels are compressed; auto keeps the slide's own JPEG bytes where tiles are its JPEG tiles.
        overwrite: cut anew where other tiles of this slide are there, instead of refusing to.

    Returns:
        The store, opened: ``store.read(rows)`` gives uint8 (n, px, px, 3), RGB.

    Raises:
        SlideError: ``unreadable_tiles``, or without ``overwrite`` ``slide_changed`` or ``other_configuration``.
        UsageError: ``out`` cannot be written to.
    """
    out = Path(out)
    final = out / "tiles" / f"{slide.slide_id}.zarr"
    prepare_output(out)
    with working(out, f"tile-{slide.slide_id}"):
        identity = _identity(slide, grid, codec)
        if not _is_there(final, identity, overwrite):
            with publishing(out, final) as draft:
                write_tiles(slide, grid, draft, codec, {"tissue": {"source": "given", "threshold": None}, **identity})
    return TileStore.open(final)


def _identity(slide: Slide, grid: TileGrid, codec: Codec) -> Attributes:
    """Fingerprints of what decides these tiles: the slide's bytes, where the tiles lie, how they are read and kept."""
    decided = {
        "origins": array_sha256(grid.origins),
        "tissue_fraction": array_sha256(grid.tissue_fraction),
        "padded": array_sha256(grid.padded),
        "tile": describe_tiles(slide, grid),
        "codec": codec,
    }
    return {"slide_fingerprint": file_fingerprint(slide.path), "config_fingerprint": fingerprint(decided)}


def _is_there(final: Path, identity: Attributes, overwrite: bool) -> bool:
    """Whether the published store is what would be made now; one that does not even open is made anew."""
    try:
        found = TileStore.open(final).attributes
    except StoreError:
        return False
    return still_valid(f"tiles/{final.name}", found, identity, overwrite)
