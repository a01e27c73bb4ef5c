"""Large slides for benchmarks, made of the JPEG tiles of a real one: its tissue repeated over an ellipse, glass around.

A third of the plane is tissue, as on most slides. Every tile has its own bytes in the file, so that reading is reading.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import tifffile

UM = 0.25
REDUCTIONS = (1, 4, 16)
_FEWEST = 8  # tiles along a side: fewer do not show the ellipse
_LEFT, _TOP = 15, 16  # first column and row of the tiles taken: nothing but tissue there


def build(path: Path, source: Path, side: int, tile: int) -> Path:
    """Write a square slide of ``side`` pixels in JPEG tiles of ``tile``: levels 1, 1/4 and 1/16, if not too small.

    Tiles of 256 px at level 0 are the source's own bytes; others are encoded anew (quality 85, 4:2:0).
    """
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for reduction in REDUCTIONS:
            level_side = side // reduction
            if reduction > 1 and level_side < _FEWEST * tile:
                break
            pattern = _own_tiles(source) if reduction == 1 and tile == 256 else _encoded(source, reduction, tile)
            tiff.write(
                _lay_out(pattern, _jpeg(np.full((tile, tile, 3), 243, np.uint8)), -(-level_side // tile)),
                shape=(level_side, level_side, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                compression=7,
                photometric="ycbcr",
                subsampling=(2, 2),
                subfiletype=int(reduction > 1),
                resolution=(1e4 / UM / reduction, 1e4 / UM / reduction),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
            )
    return path


def _own_tiles(source: Path) -> list[list[bytes]]:
    """Eleven by eleven of the source's tiles from the middle of its tissue, as they stand in the file."""
    with tifffile.TiffFile(source) as tiff, source.open("rb") as raw:
        page = tiff.pages.first
        columns = -(-page.imagewidth // page.tilewidth)
        grid: list[list[bytes]] = []
        for row in range(_TOP, _TOP + 11):
            grid.append([])
            for column in range(_LEFT, _LEFT + 11):
                raw.seek(page.dataoffsets[row * columns + column])
                grid[-1].append(raw.read(page.databytecounts[row * columns + column]))
    return grid


def _encoded(source: Path, reduction: int, tile: int) -> list[list[bytes]]:
    """The same part of the source at a level, cut into tiles of another size."""
    with openslide.OpenSlide(source) as slide:
        level = slide.level_downsamples.index(float(reduction))
        side = 11 * 256 // reduction
        pixels = np.asarray(slide.read_region((_LEFT * 256, _TOP * 256), level, (side, side)))[..., :3]
    count = min(int(np.lcm(side, tile)) // tile, 22)  # a seam does no harm here; gigabytes in memory would
    times = -(-count * tile // side)
    wide = np.tile(pixels, (times, times, 1))
    return [
        [_jpeg(wide[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]) for x in range(count)] for y in range(count)
    ]


def _jpeg(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=85, subsampling="420"))


def _lay_out(pattern: list[list[bytes]], glass: bytes, count: int) -> Iterator[bytes]:
    """The tiles of a level, row-major: the pattern inside an ellipse, glass elsewhere."""
    for y in range(count):
        for x in range(count):
            inside = ((x + 0.5) / count - 0.5) ** 2 / 0.36**2 + ((y + 0.5) / count - 0.5) ** 2 / 0.31**2 < 1
            yield pattern[y % len(pattern)][x % len(pattern[0])] if inside else glass


def main() -> None:
    """Write one slide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="A slide of 256-px JPEG tiles and levels 1, 4 and 16, tissue inside.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--tile", type=int, default=256)
    given = parser.parse_args()
    build(given.out, given.source, given.side, given.tile)


if __name__ == "__main__":
    main()
