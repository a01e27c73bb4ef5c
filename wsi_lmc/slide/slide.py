"""An open, calibrated slide: regions at a wanted mpp, and an overview streamed in bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.slide.geometry import Sampling, SlideGeometry, SlideInfo
from wsi_lmc.slide.reader import Reader, ReadError
from wsi_lmc.units import LevelSize, SlidePoint

_BLOCK_PX = 2048  # side of the blocks an overview is made of: 16 MB each, whatever the slide's size


@dataclass(frozen=True)
class Region:
    """RGB pixels of a box; ``transparent`` where some were composited; ``readable`` False: all are background."""

    pixels: UInt8[np.ndarray, "h w 3"]
    transparent: bool
    readable: bool


@dataclass(frozen=True)
class Overview:
    """The whole slide reduced by area; ``downsample`` level-0 pixels make one overview pixel, along x and y."""

    pixels: UInt8[np.ndarray, "h w 3"]
    downsample: tuple[float, float]


class Slide:
    """One slide as calibrated pixels. Not thread-safe; use as a context manager."""

    def __init__(
        self,
        slide_id: str,
        reader: Reader,
        geometry: SlideGeometry,
        mpp_source: str,
        reopen: Callable[[], Reader],
    ) -> None:
        self.slide_id = slide_id
        self.geometry = geometry
        self.mpp_source = mpp_source
        self._reader = reader
        self._reopen = reopen

    @property
    def info(self) -> SlideInfo:
        """What stores record of this slide."""
        bounds = self.geometry.bounds
        return SlideInfo(
            id=self.slide_id,
            width=self.geometry.size.width,
            height=self.geometry.size.height,
            mpp=(self.geometry.mpp.x, self.geometry.mpp.y),
            mpp_source=self.mpp_source,
            vendor=self._reader.vendor,
            reader=self._reader.name,
            quickhash=self._reader.quickhash,
            bounds=(bounds.origin.x, bounds.origin.y, bounds.size.width, bounds.size.height),
        )

    def read(self, origin: SlidePoint, sampling: Sampling) -> Region:
        """One tile whose top-left corner lies at ``origin`` (level-0 pixels), reduced by area where asked for.

        A tile that cannot be decoded comes back as background with ``readable`` False, and the file is reopened,
        because OpenSlide refuses every read after an error.
        """
        region = self.read_level(origin, sampling.level, sampling.read)
        if not sampling.resampled:
            return region
        shape = (sampling.tile.width, sampling.tile.height)
        pixels = cv2.resize(region.pixels, shape, interpolation=cv2.INTER_AREA)
        return Region(np.asarray(pixels, np.uint8), region.transparent, region.readable)

    def read_level(self, origin: SlidePoint, level: int, size: LevelSize) -> Region:
        """A box of level pixels, composited on the slide's background colour."""
        try:
            rgba = self._reader.read(origin, level, size)
        except ReadError:
            background = self._reader.background
            self._reader.close()
            self._reader = self._reopen()
            blank = np.full((size.height, size.width, 3), background, np.uint8)
            return Region(blank, transparent=False, readable=False)
        alpha = rgba[..., 3]
        if alpha.min() == 255:
            return Region(np.ascontiguousarray(rgba[..., :3]), transparent=False, readable=True)
        return Region(_composite(rgba, self._reader.background), transparent=True, readable=True)

    def overview(self, mpp: float) -> Overview:
        """The slide reduced by area to the coarsest whole reduction of a level that is not coarser than ``mpp``.

        Read in blocks from the coarsest level that suffices, so a slide of one level needs no more memory than others.
        """
        geometry = self.geometry
        fit = [n for n in range(len(geometry.downsamples)) if geometry.level_mpp(n).mean <= mpp]
        level = fit[-1] if fit else 0
        whole, downsample = self._reader.level_sizes[level], geometry.downsamples[level]
        factor = max(1, int(mpp / geometry.level_mpp(level).mean))
        step = max(1, _BLOCK_PX // factor) * factor
        shape = (-(-whole.height // factor), -(-whole.width // factor), 3)
        pixels = np.empty(shape, np.uint8)
        for top in range(0, whole.height, step):
            for left in range(0, whole.width, step):
                size = LevelSize(min(step, whole.width - left), min(step, whole.height - top))
                origin = SlidePoint(round(left * downsample), round(top * downsample))
                block = _reduce(self.read_level(origin, level, size).pixels, factor)
                y, x = top // factor, left // factor
                pixels[y : y + block.shape[0], x : x + block.shape[1]] = block
        return Overview(pixels, (factor * downsample, factor * downsample))

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _composite(rgba: UInt8[np.ndarray, "h w 4"], background: tuple[int, int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Lay straight (not premultiplied) RGBA over a background colour; ``convert("RGB")`` would give black."""
    alpha = rgba[..., 3:].astype(np.float32) / 255.0
    mixed = rgba[..., :3] * alpha + np.asarray(background, np.float32) * (1.0 - alpha)
    return np.rint(mixed).astype(np.uint8)


def _reduce(block: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "y x 3"]:
    """Reduce by a whole factor by area; a last row or column of pixels that does not fill a cell is repeated."""
    if factor == 1:
        return block
    height, width = block.shape[:2]
    padded = np.pad(block, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    shape = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, shape, interpolation=cv2.INTER_AREA), np.uint8)
