"""Small whole slides, of which bad ones are made: mottled tissue beside glass, a little over 6 x 8 tiles of 64 px."""

from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import tifffile

from tests.faults.patching import replace_bytes
from tests.tiffs import Kind, halve, write_tiff

SIDE = 64
HEIGHT, WIDTH = 6 * SIDE + 16, 8 * SIDE + 16
UM = 0.5
TISSUE_TILES = 36
"""Whole tiles that are tissue: six in each of six rows."""

JPEG = Kind(tile=SIDE)
BIG = Kind(tile=SIDE, bigtiff=True)
APERIO = Kind(tile=SIDE, rgb=True, tables=True, aperio=True)
JP2K = Kind(tile=SIDE, codec="jpeg2000", aperio=True)

_PRIVATE = 40_000
_SHADES = np.arange(256)
PALETTE = np.stack([np.minimum(_SHADES + more * (_SHADES < 200), 255) * 257 for more in (90, 0, 50)]).astype(np.uint16)
"""Colours of a palette by shade, in 16 bits as TIFF has them: the darker ones are pink."""


def tissue(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Tissue of mottled pink, with a quarter of glass at its left."""
    random = np.random.default_rng(5)
    mottled = random.integers(0, 50, (-(-height // 8), -(-width // 8), 1)).repeat(8, 0).repeat(8, 1)[:height, :width]
    pixels = np.asarray((215, 120, 175)) - mottled
    pixels[:, : width // 4] = 243
    return pixels.astype(np.uint8)


def opaque(alpha: int) -> np.ndarray:
    """Tissue with a fourth sample."""
    return np.dstack([tissue(), np.full((HEIGHT, WIDTH), alpha, np.uint8)])


def generic(path: Path) -> Path:
    """A generic pyramid of two levels."""
    return write_tiff(path, [tissue(), halve(tissue())], JPEG, UM)


def aperio(path: Path) -> Path:
    """An Aperio slide of two levels in JPEG."""
    return write_tiff(path, [tissue(), halve(tissue())], APERIO, UM)


def jp2k(path: Path) -> Path:
    """An Aperio slide of two levels in JPEG 2000."""
    return write_tiff(path, [tissue(), halve(tissue())], JP2K, UM)


def plain(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """A TIFF of one level without loss, of any kind of pixel."""
    per_cm = 1e4 / UM
    given: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (SIDE, SIDE)}
    given |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels, **(given | options))
    return path


def aperio_with_picture(path: Path, description: str | None = None, **more: Any) -> Path:
    """An Aperio slide and a striped picture after its first level, as scanners do; ``more`` is of the picture."""
    options: dict[str, Any] = {"metadata": None, "software": False, "photometric": "rgb"}
    about = f"Aperio Image Library v12.0.15 \r\n{WIDTH}x{HEIGHT}|MPP = {UM}"
    extra = (_PRIVATE, 4, 1, 2, True)
    with tifffile.TiffWriter(path) as file:
        file.write(tissue(), tile=(SIDE, SIDE), compression="jpeg", description=about, extratags=[extra], **options)
        options |= {"description": description, "subfiletype": 1}
        file.write(halve(halve(tissue())), rowsperstrip=16, **(options | more))
    return path


def deepen(path: Path) -> None:
    """Make the private tag of an Aperio slide with a picture say that it has a depth of 2."""
    entries = [pack("<HHII", code, 4, 1, 2) for code in (_PRIVATE, 32997)]
    replace_bytes(path, entries[0], entries[1])
