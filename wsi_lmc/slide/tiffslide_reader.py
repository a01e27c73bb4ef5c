"""Slides through tiffslide: pure Python over tifffile, for TIFF families OpenSlide does not open."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import tifffile
import tiffslide
from jaxtyping import Int64, UInt8

from wsi_lmc.slide.limits import check_segments
from wsi_lmc.slide.reader import MppStatement, ReadError, resolution_statement
from wsi_lmc.units import LevelSize, SlideBox, SlidePoint


class TiffSlideReader:
    """A slide opened by tiffslide; boxes that leave the slide are padded here, with alpha 0.

    Raises:
        ValueError: its pixels are not 8-bit RGB, or its very first one cannot be decoded.
        SlideError: ``too_large``, where its native tiles are.
    """

    name = "tiffslide"

    def __init__(self, path: Path) -> None:
        with ExitStack() as opened:  # it stays open only where all of it can be used
            self._slide = opened.enter_context(tiffslide.TiffSlide(path))
            self._properties: dict[str, Any] = dict(self._slide.properties)
            chunks = [self._level(level).chunks for level in range(len(self.level_sizes))]
            check_segments(path.name, (LevelSize(int(c[1]), int(c[0])) for c in chunks), 3)
            with tifffile.TiffFile(path) as file:
                self._missing = tuple(_missing_tiles(file, size) for size in self.level_sizes)
            try:
                self.read(SlidePoint(0, 0), 0, LevelSize(1, 1))
            except ReadError as error:
                raise ValueError(str(error)) from error
            opened.pop_all()

    @property
    def vendor(self) -> str:
        """The format tiffslide recognised; plain TIFF is named as OpenSlide names it."""
        return self._properties.get("tiffslide.vendor") or "generic-tiff"

    @property
    def quickhash(self) -> str | None:
        """Not computed by tiffslide."""
        return None

    @property
    def level_sizes(self) -> tuple[LevelSize, ...]:
        """Size of every level in its own pixels, finest first."""
        return tuple(LevelSize(int(width), int(height)) for width, height in self._slide.level_dimensions)

    @property
    def bounds(self) -> SlideBox | None:
        """Not known to tiffslide."""
        return None

    @property
    def background(self) -> tuple[int, int, int]:
        """White, where a tile is missing: the formats tiffslide reads state no colour."""
        return 255, 255, 255

    def mpp_statements(self) -> tuple[MppStatement, ...]:
        """Aperio's MPP as written, else the TIFF resolution; tiffslide's own value only for vendors it parses.

        For Aperio files without MPP tiffslide reports 0.5: that is a guess, and is not passed on.
        """
        own = self._properties.get("aperio.MPP")
        if own is not None:
            return (MppStatement("aperio.MPP", str(own), str(own)),)
        resolution = resolution_statement(self._properties)
        x, y = self._properties.get("tiffslide.mpp-x"), self._properties.get("tiffslide.mpp-y")
        if self.vendor in {"generic-tiff", "aperio"} or x is None or y is None:
            return resolution
        return (MppStatement(f"{self.vendor} (tiffslide.mpp-x)", str(x), str(y)),)

    def read(self, origin: SlidePoint, level: int, size: LevelSize) -> UInt8[np.ndarray, "h w 4"]:
        """RGBA of a box of level pixels; see :meth:`wsi_lmc.slide.reader.Reader.read`."""
        downsample = float(self._slide.level_downsamples[level])
        left, top = round(origin.x / downsample), round(origin.y / downsample)
        whole = self.level_sizes[level]
        x0, x1 = (min(max(x, 0), whole.width) for x in (left, left + size.width))
        y0, y1 = (min(max(y, 0), whole.height) for y in (top, top + size.height))
        rgba = np.zeros((size.height, size.width, 4), np.uint8)
        if x1 > x0 and y1 > y0:
            inside = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
            inside[..., :3] = self._pixels(x0, y0, level, LevelSize(x1 - x0, y1 - y0))
            inside[..., 3] = 255
        x, y, right, bottom = self._missing[level].T
        near = (x < left + size.width) & (y < top + size.height) & (right > left) & (bottom > top)
        for x, y, right, bottom in self._missing[level][near].tolist():
            # tiffslide makes black of tiles that the file does not have
            rgba[max(y - top, 0) : bottom - top, max(x - left, 0) : right - left] = 0
        return rgba

    def _pixels(self, x: int, y: int, level: int, size: LevelSize) -> UInt8[np.ndarray, "h w 3"]:
        """RGB of a box that lies inside the level, ``x``, ``y`` and ``size`` in level pixels."""
        try:
            pixels = np.asarray(self._level(level)[y : y + size.height, x : x + size.width])
        except (ValueError, RuntimeError, OSError, KeyError, tifffile.TiffFileError) as error:
            raise ReadError(str(error)) from error
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ReadError(f"pixels are {pixels.dtype} {pixels.shape}, expected 8-bit RGB")
        return pixels

    def _level(self, level: int) -> Any:  # noqa: ANN401  zarr's array, untyped by tiffslide
        series = self._slide.ts_zarr_grp
        return cast(Any, series)[str(level)] if hasattr(series, "keys") else series

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


def _missing_tiles(file: tifffile.TiffFile, level: LevelSize) -> Int64[np.ndarray, "n 4"]:
    """Left, top, right and bottom of the tiles that a level does not have, in its pixels."""
    pages = (page for page in file.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled)
    page = next((p for p in pages if (p.imagewidth, p.imagelength) == (level.width, level.height)), None)
    if page is None:
        return np.zeros((0, 4), np.int64)
    missing = np.flatnonzero(np.asarray(page.databytecounts) == 0)
    row, column = np.divmod(missing, -(-level.width // page.tilewidth))
    side = np.asarray([page.tilewidth, page.tilelength])
    corner = np.stack([column, row], axis=1) * side
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)
