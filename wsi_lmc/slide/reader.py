"""What every reader gives: pixels of a level as RGBA, level sizes, and what the file states of its pixel size.

Readers state; they do not interpret. The one place that decides on microns per pixel is ``calibration``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from wsi_lmc.units import LevelSize, SlideBox, SlidePoint


@dataclass(frozen=True)
class MppStatement:
    """What a file says of its pixel size, as written there: microns per level-0 pixel along x and y."""

    source: str
    x: str
    y: str


@dataclass(frozen=True)
class Boxes:
    """What happened to each of n boxes: composited on background in part, or damaged in part."""

    transparent: Bool[np.ndarray, " n"]
    unreadable: Bool[np.ndarray, " n"]


Done = Callable[[int, bool], None]
"""Hears of each box as it is completed: its number, and whether anything in it could not be decoded."""


def ignore(box: int, damaged: bool) -> None:
    """A :data:`Done` that does nothing."""
    del box, damaged


class ReadError(Exception):
    """A region could not be decoded. The reader that raised it may be unusable: close it and open another."""


@runtime_checkable
class Reader(Protocol):
    """One open slide file. Not thread-safe; never shows label or macro images."""

    @property
    def name(self) -> str:
        """Which library reads: "openslide" or "tiffslide"."""
        ...

    @property
    def vendor(self) -> str:
        """The format's name as the library reports it, "generic-tiff" or "aperio" for instance."""
        ...

    @property
    def quickhash(self) -> str | None:
        """OpenSlide's fingerprint of the slide's structure, where known."""
        ...

    @property
    def level_sizes(self) -> tuple[LevelSize, ...]:
        """Size of every level in its own pixels, finest first."""
        ...

    @property
    def bounds(self) -> SlideBox | None:
        """The part of level 0 that was scanned, where the file says so."""
        ...

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB of glass that was not scanned."""
        ...

    def mpp_statements(self) -> tuple[MppStatement, ...]:
        """What the file says of its pixel size, most trustworthy first; empty where it says nothing."""
        ...

    def read(self, origin: SlidePoint, level: int, size: LevelSize) -> UInt8[np.ndarray, "h w 4"]:
        """RGBA of a box of ``size`` level pixels whose top-left corner lies at ``origin`` in level-0 pixels.

        Alpha is 0 outside the slide and where nothing was scanned.

        Raises:
            ReadError: a tile inside the box cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def resolution_statement(properties: Mapping[str, object]) -> tuple[MppStatement, ...]:
    """The TIFF resolution tags as microns per pixel; empty where they carry no unit of length."""
    unit = str(properties.get("tiff.ResolutionUnit", "")).lower()
    microns = {"centimeter": 10_000.0, "inch": 25_400.0}.get(unit)
    x, y = properties.get("tiff.XResolution"), properties.get("tiff.YResolution")
    if microns is None or x is None or y is None:
        return ()
    try:
        per_x, per_y = microns / float(str(x)), microns / float(str(y))
    except (ValueError, ZeroDivisionError):
        return (MppStatement("tiff.XResolution", str(x), str(y)),)
    return (MppStatement("tiff.XResolution", f"{per_x:.9g}", f"{per_y:.9g}"),)
