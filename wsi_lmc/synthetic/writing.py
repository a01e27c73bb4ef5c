"""Pixels into real slide files: a tiled pyramidal TIFF, or an SVS as Aperio's scanners write it."""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from jaxtyping import UInt8

_TILE = (256, 256)
_REDUCTIONS = (2, 4)
_THUMBNAIL_PX = 512


def write_tiff(path: Path, pixels: UInt8[np.ndarray, "h w 3"], mpp: float, quality: int) -> None:
    """A generic pyramid: JPEG tiles of 256 px, levels 1, 1/2 and 1/4, the pixel size in the resolution tags."""
    per_cm = 1e4 / mpp
    with tifffile.TiffWriter(path) as file:
        for reduction in (1, *_REDUCTIONS):
            file.write(
                _reduced(pixels, reduction),
                tile=_TILE,
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": quality},
                resolution=(per_cm / reduction, per_cm / reduction),
                resolutionunit="CENTIMETER",
                subfiletype=0 if reduction == 1 else 1,
                metadata=None,
                software=False,
            )


def write_svs(path: Path, pixels: UInt8[np.ndarray, "h w 3"], mpp: float, quality: int) -> None:
    """An Aperio SVS: base level, thumbnail, reduced levels; pixel size and magnification in the description."""
    height, width = pixels.shape[:2]
    about = f"Aperio Image Library v12.0.15 \r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q={quality}"
    described = f"{about}|AppMag = {10 / mpp:g}|MPP = {mpp:.4f}|Filename = synthetic"
    tiled = {"tile": _TILE, "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": quality}}
    common = {"metadata": None, "software": False}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, description=described, **tiled, **common)
        thumbnail = _reduced(pixels, max(1, max(height, width) // _THUMBNAIL_PX))
        file.write(thumbnail, photometric="rgb", description=about, rowsperstrip=16, **common)
        for reduction in _REDUCTIONS:
            file.write(_reduced(pixels, reduction), description=about, **tiled, **common)


def _reduced(pixels: UInt8[np.ndarray, "h w 3"], reduction: int) -> UInt8[np.ndarray, "y x 3"]:
    if reduction == 1:
        return pixels
    size = (pixels.shape[1] // reduction, pixels.shape[0] // reduction)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
