"""What lies under the tiles: the slide's own pixels, or, where its file is not here, its overview and stored tiles.

Only levels of the slide's pyramid are ever read: never a label, a macro image or a thumbnail, which may name patients.
"""

import math
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import SlideError
from wsi_lmc.slide import GivenMpp, ReadOptions, Slide, open_slide, parse_mpp
from wsi_lmc.threads import available_cores
from wsi_lmc.tilestore import TileStore
from wsi_lmc.units import LevelSize, SlidePoint
from wsi_lmc.viewer.tiles import Area, Tiles

TILE_PX = 512
"""Side of the pieces that the page asks for, in pixels of the screen."""
Kind = Literal["slide", "overview", "stored", "sheet", "nothing"]
_QUALITY = 88
_MOST_PX = 1 << 24  # of a level that are read for one piece; beyond that the overview must do
_OVERVIEW_PX = 4096  # longest side of an overview that stands in for levels the file lacks
_MOST_TILES = 400  # stored tiles that are read for one piece
_GLASS = 238
_READ_THREADS = 4
_UNCALIBRATED = frozenset({"mpp_missing", "mpp_invalid", "mpp_conflict"})
_SOME = GivenMpp(1.0, "manifest")  # to look at a slide no size is needed, and none is then told


class SlidePicture:
    """The slide itself, by its pyramid's levels; ``size`` is its width and height in level-0 pixels."""

    kind: Kind = "slide"

    def __init__(self, slide: Slide) -> None:
        geometry = slide.geometry
        self.size = (float(geometry.size.width), float(geometry.size.height))
        self.mpp: tuple[float, float] | None = (geometry.mpp.x, geometry.mpp.y)
        self._slide = slide
        self._overview: tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]] | None = None

    def read(self, area: Area, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """An area of the finest level that is not finer than needed, reduced to ``size``."""
        downsamples = self._slide.geometry.downsamples
        wanted = max(area.width / size[0], area.height / size[1]) * 1.001
        fit = [level for level, downsample in enumerate(downsamples) if downsample <= wanted]
        level = fit[-1] if fit else 0
        width, height = (max(1, round(side / downsamples[level])) for side in (area.width, area.height))
        if width * height > _MOST_PX:
            return _cropped(*self._whole(), area, size)
        origin = SlidePoint(round(area.x), round(area.y))
        pixels = self._slide.read_level(origin, level, LevelSize(width, height)).pixels
        return _resized(pixels, size)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()

    def _whole(self) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        """The whole slide, made once, for views that no level of the file is coarse enough for."""
        if self._overview is None:
            geometry = self._slide.geometry
            found = self._slide.overview(
                geometry.mpp.mean * max(geometry.size.width, geometry.size.height) / _OVERVIEW_PX
            )
            self._overview = found.pixels, found.downsample
        return self._overview


class StoredPicture:
    """What a run folder holds of a slide: its overview, and tiles of its store where few enough are seen.

    ``size`` is width and height in level-0 pixels.
    """

    def __init__(self, tiles: Tiles, store: TileStore | None, overview: Path | None) -> None:
        self.size, self.mpp = tiles.size, tiles.mpp
        self._tiles, self._store = tiles, store
        pixels = cv2.imread(str(overview), cv2.IMREAD_COLOR_RGB) if overview and not tiles.sheet else None
        stored: Kind = "nothing" if store is None else "stored"
        self.kind: Kind = "sheet" if tiles.sheet else stored if pixels is None else "overview"
        self._overview = None if pixels is None else np.asarray(pixels, np.uint8)

    def read(self, area: Area, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """An area of the overview, and over it the stored tiles that lie there."""
        picture = np.full((size[1], size[0], 3), _GLASS, np.uint8)
        if self._overview is not None:
            width, height = self._tiles.size
            scale = (width / self._overview.shape[1], height / self._overview.shape[0])
            picture = _cropped(self._overview, scale, area, size)
        if self._store is not None:
            self._lay(self._store, picture, area)
        return picture

    def close(self) -> None:
        """Nothing is held open."""

    def _lay(self, store: TileStore, picture: UInt8[np.ndarray, "h w 3"], area: Area) -> None:
        """Put stored tiles at their places; none where there are too many of them."""
        factor = np.asarray([picture.shape[1] / area.width, picture.shape[0] / area.height])
        starts = (self._tiles.origins - np.asarray([area.x, area.y])) * factor
        ends = starts + np.asarray(self._tiles.footprint) * factor
        seen = np.nonzero(((ends > 0) & (starts < np.asarray([picture.shape[1], picture.shape[0]]))).all(axis=1))[0]
        if not 0 < len(seen) <= _MOST_TILES:
            return
        for pixels, start, end in zip(store.read(seen), starts[seen], ends[seen], strict=True):
            left, top, right, bottom = np.rint([*start, *end]).astype(int).tolist()
            tile = _resized(pixels, (max(1, right - left), max(1, bottom - top)))
            inside = tile[max(0, -top) : picture.shape[0] - top, max(0, -left) : picture.shape[1] - left]
            height, width = inside.shape[:2]
            picture[max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width] = inside


Picture = SlidePicture | StoredPicture


def open_picture(entry: SlideEntry, tiles: Tiles | None) -> SlidePicture:
    """Open a slide's file to be looked at; one whose pixel size nobody knows has none here, either.

    Raises:
        SlideError: it is not there, cannot be read, or is not the one that ``tiles`` were cut from.
    """
    mpp = parse_mpp(entry.mpp) if entry.mpp else None
    if mpp is None and tiles is not None and tiles.mpp is not None:
        mpp = math.sqrt(tiles.mpp[0] * tiles.mpp[1])  # known when it was cut; a file may state none
    given = None if mpp is None else GivenMpp(mpp, "manifest")
    options = ReadOptions(threads=min(_READ_THREADS, available_cores()))
    try:
        picture = SlidePicture(open_slide(entry.path, entry.slide_id, given, options))
    except SlideError as error:
        if error.code not in _UNCALIBRATED:
            raise
        picture = SlidePicture(open_slide(entry.path, entry.slide_id, _SOME, options))
        picture.mpp = None
    found = picture.size
    if tiles is not None and tiles.size != found:
        picture.close()
        raise SlideError(
            "slide_changed", f"a slide of {found[0]:.0f} x {found[1]:.0f} pixels",
            f"{tiles.size[0]:.0f} x {tiles.size[1]:.0f}, as when it was cut", "Tile it again with --overwrite.",
        )  # fmt: skip
    return picture


def levels_of(size: tuple[float, float]) -> int:
    """The number of the finest level of a pyramid of halves, whose coarsest, 0, has one pixel."""
    return math.ceil(math.log2(max(*size, 1.0)))


def piece_of(size: tuple[float, float], level: int, column: int, row: int) -> tuple[Area, tuple[int, int]] | None:
    """The area of a piece of the pyramid and its size in pixels; None where there is no such piece."""
    if not 0 <= level <= levels_of(size) or column < 0 or row < 0:
        return None
    scale = 2.0 ** (levels_of(size) - level)
    width, height = (
        math.ceil(side / scale) - number * TILE_PX for side, number in zip(size, (column, row), strict=True)
    )
    if width <= 0 or height <= 0:
        return None
    pixels = min(TILE_PX, width), min(TILE_PX, height)
    side = TILE_PX * scale
    return Area(column * side, row * side, pixels[0] * scale, pixels[1] * scale), pixels


def to_jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Pixels as JPEG, without metadata."""
    shown = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _resized(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "y x 3"]:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    smaller = pixels.shape[1] > size[0] or pixels.shape[0] > size[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)


def _cropped(
    pixels: UInt8[np.ndarray, "h w 3"], downsample: tuple[float, float], area: Area, size: tuple[int, int]
) -> UInt8[np.ndarray, "y x 3"]:
    """An area of a whole slide's picture; ``downsample`` level-0 pixels make one of its pixels."""
    step = np.asarray([area.width / size[0], area.height / size[1]])
    reduced = step / np.asarray(downsample)
    blur = max(1.0, *reduced.tolist())
    if blur > 1.0:  # reduced by area before it is sampled
        smaller = (max(1, round(pixels.shape[1] / blur)), max(1, round(pixels.shape[0] / blur)))
        factor = pixels.shape[1] / smaller[0], pixels.shape[0] / smaller[1]
        pixels = _resized(pixels, smaller)
        downsample = downsample[0] * factor[0], downsample[1] * factor[1]
    move = np.zeros((2, 3))
    for axis, (start, each, down) in enumerate(zip((area.x, area.y), step.tolist(), downsample, strict=True)):
        move[axis, axis] = each / down
        move[axis, 2] = (start + each / 2) / down - 0.5
    glass = (_GLASS,) * 3
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(pixels, move, size, flags=flags, borderValue=glass), np.uint8)
