"""Cutting tiles: the one place where a slide's pixels meet the store."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.grid import TileGrid
from wsi_lmc.slide import Slide
from wsi_lmc.tilestore import TILES_PER_SHARD, Codec, TileRows, TileStoreWriter, Validity
from wsi_lmc.units import SlidePoint
from wsi_lmc.zarrio import Attributes

MAX_UNREADABLE_SHARE = 0.05


def read_blocks(
    slide: Slide, grid: TileGrid, size: int = TILES_PER_SHARD
) -> Iterator[tuple[UInt8[np.ndarray, "tile h w 3"], UInt8[np.ndarray, " tile"]]]:
    """Read a grid's tiles in order, ``size`` at a time: pixels, and the :class:`Validity` of each.

    Raises:
        SlideError: ``unreadable_tiles`` as soon as more than 5 % of the grid cannot be decoded.
    """
    side = grid.sampling.tile
    unreadable = 0
    for start in range(0, len(grid), size):
        stop = min(start + size, len(grid))
        pixels = np.empty((stop - start, side.height, side.width, 3), np.uint8)
        valid = np.zeros(stop - start, np.uint8)
        for row in range(start, stop):
            x, y = (int(value) for value in grid.origins[row])
            region = slide.read(SlidePoint(x, y), grid.sampling)
            pixels[row - start] = region.pixels
            if not region.readable:
                valid[row - start] = Validity.UNREADABLE
                unreadable += 1
                _check_share(unreadable, len(grid))
            elif grid.padded[row]:
                valid[row - start] = Validity.PADDED
            elif region.transparent:
                valid[row - start] = Validity.COMPOSITED
        yield pixels, valid


def cut_tiles(slide: Slide, grid: TileGrid, path: Path, codec: Codec, attributes: Attributes) -> None:
    """Write the tile store of one slide at ``path``, which must not exist.

    Args:
        slide: the open slide.
        grid: where its tiles lie.
        path: of the new store, on its way to being published.
        codec: how pixels are compressed.
        attributes: fingerprints and the tissue settings, stored beside the slide's and the tiles' description.
    """
    writer = TileStoreWriter(path, len(grid), grid.sampling.tile.width, codec)
    valid: list[UInt8[np.ndarray, " tile"]] = []

    def pixels() -> Iterator[UInt8[np.ndarray, "tile h w 3"]]:
        for block, block_valid in read_blocks(slide, grid):
            valid.append(block_valid)
            yield block

    writer.write(pixels())
    rows = TileRows(grid.origins, grid.tissue_fraction, np.concatenate([np.zeros(0, np.uint8), *valid]))
    writer.close(rows, {"slide": asdict(slide.info), "tile": describe_tiles(grid), **attributes})


def describe_tiles(grid: TileGrid) -> Attributes:
    """What the stores record of their tiles; mpp in microns per target pixel, footprint in level-0 pixels."""
    sampling = grid.sampling
    return {
        "px": sampling.tile.width,
        "mpp": sampling.requested_mpp,
        "level_mpp": [sampling.level_mpp.x, sampling.level_mpp.y],
        "effective_mpp": [sampling.effective_mpp.x, sampling.effective_mpp.y],
        "footprint": list(sampling.footprint),
        "stride": grid.stride_px,
        "level": sampling.level,
        "read_px": [sampling.read.width, sampling.read.height],
        "resampled": "area" if sampling.resampled else "no",
    }


def _check_share(unreadable: int, total: int) -> None:
    if unreadable > MAX_UNREADABLE_SHARE * total:
        raise SlideError(
            "unreadable_tiles",
            f"{unreadable} of {total} tiles cannot be decoded",
            f"{MAX_UNREADABLE_SHARE:.0%} at most",
            "Copy the slide again from its source; if it stays so, leave it out.",
        )
