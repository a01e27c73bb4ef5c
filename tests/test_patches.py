"""Images that are tiles already become a store like any other."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsi_lmc.errors import SlideError
from wsi_lmc.patches import read_image, split_image, write_patches


def test_whole_tiles_row_by_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    tiles = split_image(pixels, 32)
    assert tiles.shape == (6, 32, 32, 3)
    for number, (y, x) in enumerate([(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]):
        np.testing.assert_array_equal(tiles[number], pixels[y : y + 32, x : x + 32])
    assert split_image(pixels[:20], 32).shape == (0, 32, 32, 3)


def test_images_become_one_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((40, 70, 3), (33, 32, 3))]
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image[..., ::-1])
    store = write_patches(tmp_path / "run", "patient", files, 32, 0.62)
    assert (len(store), store.tile_px, store.mpp.mean) == (3, 32, 0.62)
    np.testing.assert_array_equal(store.read(np.arange(3))[2], images[1][:32])
    assert len({tuple(origin) for origin in store.origins.tolist()}) == 3
    again = write_patches(tmp_path / "again", "patient", files, 32, 0.62)
    assert again.fingerprint == store.fingerprint


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(SlideError, match=r"a\.png cannot be read"):
        read_image(tmp_path / "a.png")
