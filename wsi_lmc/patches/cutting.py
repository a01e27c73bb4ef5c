"""One image into tiles: brought to the size wanted, then cut."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.patches.config import SAME_MPP, PackConfig
from wsi_lmc.patches.images import Picture
from wsi_lmc.tilestore import Validity


@dataclass(frozen=True)
class CutFacts:
    """What is known of one image's tiles: origins in it, microns per level-0 pixel, and per target pixel (x, y)."""

    origins: Int32[np.ndarray, "n 2"]
    valid: UInt8[np.ndarray, " n"]
    mpp: float
    effective_mpp: tuple[float, float]
    resampled: str


def split_image(pixels: UInt8[np.ndarray, "y x 3"], px: int) -> UInt8[np.ndarray, "n px px 3"]:
    """All whole tiles of ``px`` pixels that fit side by side, row by row; what is left over is dropped."""
    return _take(pixels, _corners(pixels.shape[0], pixels.shape[1], px, "grid"), px)


def cut_image(
    path: Path, picture: Picture, mpp: float, config: PackConfig
) -> tuple[UInt8[np.ndarray, "n h w 3"], CutFacts]:
    """Cut one image: its tiles, and what is known of them.

    Args:
        path: of it, for messages.
        picture: its pixels.
        mpp: microns per pixel of it.
        config: how.

    Raises:
        SlideError: ``too_small`` for a single tile, or ``too_coarse`` for the pixel size wanted.
    """
    height, width = picture.pixels.shape[:2]
    new_height, new_width = _wanted_size(path, (height, width), mpp, config)
    px = config.tile_px
    pixels, transparent = picture.pixels, picture.transparent
    if (new_height, new_width) != (height, width):
        kind = cv2.INTER_AREA if new_width < width else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (new_width, new_height), interpolation=kind), np.uint8)
        if transparent is not None:
            share = cv2.resize(transparent.astype(np.float32), (new_width, new_height), interpolation=cv2.INTER_AREA)
            transparent = np.asarray(share) > 0
    corners = _corners(new_height, new_width, px, config.crop)
    if not len(corners):
        raise SlideError(
            "too_small",
            f"{path.name} has {new_width} x {new_height} pixels{'' if new_width == width else ' at the size wanted'}",
            f"{px} x {px}, a tile, at least",
            "Ask for a smaller --tile-px, pass --fit --enlarge, or leave the image out.",
        )
    scale = np.array([width / new_width, height / new_height])
    facts = CutFacts(
        np.floor(corners[:, ::-1] * scale).astype(np.int32),
        _validity(transparent, corners, px),
        mpp,
        (mpp * float(scale[0]), mpp * float(scale[1])),
        "no" if new_width == width else "area" if new_width < width else "cubic",
    )
    return _take(pixels, corners, px), facts


def _wanted_size(path: Path, size: tuple[int, int], mpp: float, config: PackConfig) -> tuple[int, int]:
    """Height and width that an image is brought to."""
    factor = config.tile_px / min(size) if config.fit else mpp / config.tile_mpp if config.tile_mpp else 1.0
    if not config.fit and abs(factor - 1.0) <= SAME_MPP:
        return size
    if factor > 1.0 and not config.enlarge:
        raise SlideError(
            "too_small" if config.fit else "too_coarse",
            f"{path.name} would have to be enlarged {factor:.3g} times",
            "images that are larger or finer than the tiles",
            "Pass --enlarge if that is meant, or ask for another --tile-mpp or --tile-px.",
        )
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def _corners(height: int, width: int, px: int, crop: str) -> Int64[np.ndarray, "n 2"]:
    """y, x of the tiles of an image, row by row."""
    if crop == "centre":
        found = [((height - px) // 2, (width - px) // 2)] if min(height, width) >= px else []
        return np.array(found, np.int64).reshape(-1, 2)
    ys, xs = np.mgrid[: height // px, : width // px]
    return np.stack([ys.ravel(), xs.ravel()], 1).astype(np.int64) * px


def _take(
    pixels: UInt8[np.ndarray, "y x 3"], corners: Int64[np.ndarray, "n 2"], px: int
) -> UInt8[np.ndarray, "n px px 3"]:
    tiles = np.empty((len(corners), px, px, 3), np.uint8)
    for tile, (y, x) in zip(tiles, corners.tolist(), strict=True):
        tile[...] = pixels[y : y + px, x : x + px]
    return tiles


def _validity(
    transparent: Bool[np.ndarray, "y x"] | None, corners: Int64[np.ndarray, "n 2"], px: int
) -> UInt8[np.ndarray, " n"]:
    if transparent is None:
        return np.zeros(len(corners), np.uint8)
    seen = [bool(transparent[y : y + px, x : x + px].any()) for y, x in corners.tolist()]
    return np.where(seen, Validity.COMPOSITED, Validity.OK).astype(np.uint8)
