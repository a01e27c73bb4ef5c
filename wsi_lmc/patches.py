"""Tile stores of images that are tiles already, such as published patch data sets: no slide, grid or tissue mask."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.publish import publishing
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import Attributes


def split_image(pixels: UInt8[np.ndarray, "y x 3"], px: int) -> UInt8[np.ndarray, "n px px 3"]:
    """All whole tiles of ``px`` pixels that fit side by side, row by row; what is left over is dropped."""
    rows, columns = pixels.shape[0] // px, pixels.shape[1] // px
    whole = pixels[: rows * px, : columns * px].reshape(rows, px, columns, px, 3)
    return np.ascontiguousarray(whole.swapaxes(1, 2).reshape(rows * columns, px, px, 3))


def read_image(path: Path) -> UInt8[np.ndarray, "y x 3"]:
    """An image file as RGB.

    Raises:
        SlideError: ``not_an_image``.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise SlideError("not_an_image", f"{path.name} cannot be read", "PNG, JPEG or TIFF", "Copy it again.")
    return np.asarray(pixels, np.uint8)


def write_patches(run_folder: Path, slide_id: str, images: Sequence[Path], px: int, mpp: float) -> TileStore:
    """Publish ``tiles/<slide_id>.zarr`` with the tiles of all ``images`` (of one slide, patient or site), in order.

    Args:
        run_folder: where the store goes.
        slide_id: safe id; splits and intervals treat all of it as one slide.
        images: files; each is split into tiles of ``px`` pixels.
        px: side of a tile.
        mpp: microns per pixel of the images; tiles are not resampled.

    Raises:
        SlideError: an image cannot be read.
    """
    parts = [split_image(read_image(path), px) for path in images]
    counts = [len(part) for part in parts]
    tiles = np.concatenate([np.zeros((0, px, px, 3), np.uint8), *parts])
    final = run_folder / "tiles" / f"{slide_id}.zarr"
    image = np.repeat(np.arange(len(images)), counts)
    origins = np.stack([np.arange(len(tiles)) * px, image * px], 1).astype(np.int32)
    rows = TileRows(origins, np.ones(len(tiles), np.float32), np.zeros(len(tiles), np.uint8))
    with (
        publishing(run_folder, final) as draft,
        Threads() as threads,
        TileStoreWriter(draft, len(tiles), px, "lossless") as writer,
    ):
        writer.write(0, tiles, threads)
        writer.close(rows, _attributes(slide_id, images, px, mpp))
    return TileStore.open(final)


def _attributes(slide_id: str, images: Sequence[Path], px: int, mpp: float) -> Attributes:
    slide = {"id": slide_id, "mpp": [mpp, mpp], "mpp_source": "given", "reader": "images", "vendor": "images"}
    return {
        "slide": slide,
        "tile": {"px": px, "mpp": mpp, "level_mpp": [mpp, mpp], "effective_mpp": [mpp, mpp], "resampled": "no"},
        "slide_fingerprint": fingerprint([file_fingerprint(path) for path in images]),
        "config_fingerprint": fingerprint({"px": px, "mpp": mpp}),
    }
