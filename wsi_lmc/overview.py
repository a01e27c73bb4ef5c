"""The picture of what was cut: tissue contour, kept tiles, on the overview the mask was made from."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.grid import TileGrid
from wsi_lmc.slide import Overview
from wsi_lmc.tissue import TissueMask

_CONTOUR, _KEPT = (0, 120, 60), (30, 60, 200)  # RGB
_LONG_SIDE = 1600


def draw_overview(overview: Overview, mask: TissueMask, grid: TileGrid) -> UInt8[np.ndarray, "y x 3"]:
    """The overview with the tissue's outline in green, kept tiles framed in blue, everything else veiled."""
    height, width = overview.pixels.shape[:2]
    scale = min(4.0, _LONG_SIDE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarge = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    picture = np.ascontiguousarray(cv2.resize(overview.pixels, shape, interpolation=enlarge))
    factor = np.array([shape[0] / width, shape[1] / height])
    to_picture = factor / np.asarray(overview.downsample)
    corners = np.rint(grid.origins * to_picture).astype(int)
    ends = np.rint((grid.origins + np.asarray(grid.sampling.footprint)) * to_picture).astype(int)
    boxes = np.concatenate([corners, ends], axis=1).tolist()
    kept = np.zeros(picture.shape[:2], np.uint8)
    for x0, y0, x1, y1 in boxes:
        kept[y0:y1, x0:x1] = 1
    veiled = cv2.addWeighted(picture, 0.55, np.full_like(picture, 255), 0.45, 0)
    cv2.copyTo(picture, kept, veiled)
    picture = veiled
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), _KEPT, 1)
    enlarged = cv2.resize(mask.mask.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST)
    rings, _ = cv2.findContours(enlarged, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, rings, -1, _CONTOUR, 2)
    return np.asarray(picture, np.uint8)


def write_jpeg(path: Path, pixels: UInt8[np.ndarray, "y x 3"]) -> None:
    """Write RGB pixels as JPEG, without metadata."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    path.write_bytes(encoded.tobytes())
