"""Slides through OpenSlide: every format it knows, one tile at a time."""

from pathlib import Path

import numpy as np
import openslide
from jaxtyping import UInt8

from wsi_lmc.slide.reader import MppStatement, ReadError, resolution_statement
from wsi_lmc.units import LevelSize, SlideBox, SlidePoint, SlideSize


class OpenSlideReader:
    """A slide opened by OpenSlide.

    After one undecodable tile every later read on the same handle fails (OpenSlide latches the error), so whoever
    catches :class:`ReadError` opens a new reader.
    """

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._slide = openslide.OpenSlide(path)
        # Asked now: after a tile that cannot be decoded a handle refuses every question.
        self._properties = read_properties(self._slide)
        self._level_sizes = tuple(LevelSize(width, height) for width, height in self._slide.level_dimensions)

    @property
    def vendor(self) -> str:
        """OpenSlide's vendor string."""
        return self._properties[openslide.PROPERTY_NAME_VENDOR]

    @property
    def quickhash(self) -> str | None:
        """OpenSlide's quickhash-1."""
        return self._properties.get(openslide.PROPERTY_NAME_QUICKHASH1)

    @property
    def level_sizes(self) -> tuple[LevelSize, ...]:
        """Size of every level in its own pixels, finest first."""
        return self._level_sizes

    @property
    def bounds(self) -> SlideBox | None:
        """The scanned part of level 0, from ``openslide.bounds-*``."""
        names = ("x", "y", "width", "height")
        values = [self._properties.get(f"openslide.bounds-{name}") for name in names]
        if any(value is None for value in values):
            return None
        x, y, width, height = (int(str(value)) for value in values)
        return SlideBox(SlidePoint(x, y), SlideSize(width, height))

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB from ``openslide.background-color``, white where none is stated."""
        text = self._properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        red, green, blue = bytes.fromhex(text)
        return red, green, blue

    def mpp_statements(self) -> tuple[MppStatement, ...]:
        """Aperio's MPP, else the vendor's own through OpenSlide, else the TIFF resolution."""
        own = self._properties.get("aperio.MPP")
        if own is not None:
            return (MppStatement("aperio.MPP", own, own),)
        resolution = resolution_statement(self._properties)
        x = self._properties.get(openslide.PROPERTY_NAME_MPP_X)
        y = self._properties.get(openslide.PROPERTY_NAME_MPP_Y)
        if self.vendor == "generic-tiff" or x is None or y is None:
            return resolution
        return (MppStatement(f"{self.vendor} (openslide.mpp-x)", x, y),)

    def read(self, origin: SlidePoint, level: int, size: LevelSize) -> UInt8[np.ndarray, "h w 4"]:
        """RGBA of a box of level pixels; see :meth:`wsi_lmc.slide.reader.Reader.read`."""
        try:
            image = self._slide.read_region((origin.x, origin.y), level, (size.width, size.height))
        except openslide.OpenSlideError as error:
            raise ReadError(str(error)) from error
        return np.asarray(image)

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


def read_properties(slide: openslide.OpenSlide) -> dict[str, str]:
    """All properties whose names are UTF-8: scanners write others, too, by which OpenSlide's Python finds nothing."""
    return {name: slide.properties[name] for name in slide.properties if name in slide.properties}
