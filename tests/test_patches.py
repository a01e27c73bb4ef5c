"""Images that are tiles already become a store like any other."""

from pathlib import Path
from typing import Literal

import cv2
import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile

from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.inspection import problems_of_tiles
from wsi_lmc.patches import (
    PackConfig,
    Patch,
    Picture,
    cut_image,
    decode_image,
    image_numbers,
    read_image,
    split_image,
    write_patches,
    write_store,
)
from wsi_lmc.tilestore import TileStore, Validity


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


RGB = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 256, (45, 70, 3), np.uint8), (0, 0), 2)


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """By OpenCV, which has the channels in the order BGR."""
    swapped = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, swapped)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
def test_pixels_come_as_they_are_stored(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, RGB))
    expected = RGB if suffix != ".jpg" else simplejpeg.decode_jpeg(path.read_bytes())
    np.testing.assert_array_equal(read_image(path), expected)


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    alpha = np.full((45, 70), 255, np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png", np.dstack([RGB, alpha])))
    assert decode_image(path, path.read_bytes()).transparent is None
    alpha[:10, :20], alpha[10:12] = 0, 128
    path.write_bytes(encoded(".png", np.dstack([RGB, alpha])))
    picture = decode_image(path, path.read_bytes())
    assert picture.transparent is not None
    np.testing.assert_array_equal(picture.transparent, alpha < 255)
    share = alpha[..., None] / 255
    np.testing.assert_allclose(picture.pixels, RGB * share + 255 * (1 - share), atol=0.51)
    write_store(tmp_path / "s.zarr", "s", [Patch(path)], PackConfig(tile_px=20, mpp=0.5))
    found = TileStore.open(tmp_path / "s.zarr").valid.reshape(2, 3)
    assert found.tolist() == [[Validity.COMPOSITED] * 3, [Validity.OK] * 3]


def test_a_palette_is_colour(tmp_path: Path) -> None:
    numbers = np.arange(40 * 50).reshape(40, 50).astype(np.uint8)
    table = np.random.default_rng(2).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", numbers, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), (table.T[numbers] >> 8).astype(np.uint8))


def cmyk(height: int, width: int) -> bytes:
    found = imagecodecs.jpeg8_encode(np.full((height, width, 4), 90, np.uint8), colorspace="CMYK", outcolorspace="CMYK")
    return bytes(found)


UNUSUAL = {
    "grey.png": (encoded(".png", RGB[..., 0]), "grey, in 8 bits"),
    "grey.jpg": (encoded(".jpg", RGB[..., 0]), "grey, in 8 bits"),
    "grey.tif": (encoded(".tif", RGB[..., 0]), "grey, in 8 bits"),
    "grey.bmp": (encoded(".bmp", RGB[..., 0]), "grey, in 8 bits"),
    "deep.png": (encoded(".png", RGB.astype(np.uint16) * 16), "in 16 bits"),
    "deep.tif": (encoded(".tif", RGB.astype(np.uint16) * 16), "in 16 bits"),
    "float.tif": (encoded(".tif", RGB.astype(np.float32)), "in 32 bits"),
    "cmyk.jpg": (cmyk(40, 50), "in CMYK"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_pixels_that_could_be_taken_wrong_are_refused(tmp_path: Path, name: str) -> None:
    data, said = UNUSUAL[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SlideError, match=said) as caught:
        read_image(tmp_path / name)
    assert caught.value.code == "unsupported"


def test_cmyk_in_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 50, 4), 90, np.uint8), photometric="separated")
    with pytest.raises(SlideError, match="photometric interpretation 5"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
def test_damage_is_never_taken_for_pixels(tmp_path: Path, suffix: str) -> None:
    whole = encoded(suffix, RGB)
    path = tmp_path / f"a{suffix}"
    for share in (0.02, 0.3, 0.7, 0.97, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SlideError) as caught:
            read_image(path)
        assert caught.value.code in ("not_an_image", "truncated", "damaged", "empty_file"), share
        assert str(tmp_path) not in str(caught.value)


def test_what_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    png = bytearray(encoded(".png", RGB))
    png[16:24] = (100_000).to_bytes(4) * 2
    bmp = bytearray(encoded(".bmp", RGB))
    bmp[18:26] = (20_000).to_bytes(4, "little") * 2
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(40_000)
    for suffix, data in ((".png", png), (".bmp", bmp), (".tif", (tmp_path / "a.tif").read_bytes())):
        (tmp_path / f"b{suffix}").write_bytes(data)
        with pytest.raises(SlideError, match="pixels") as caught:
            read_image(tmp_path / f"b{suffix}")
        assert caught.value.code == "too_large"


def picture(height: int, width: int) -> Picture:
    return Picture(np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8))


def test_a_crop_from_the_middle() -> None:
    image = picture(71, 100)
    tiles, facts = cut_image(Path("a"), image, 0.5, PackConfig(tile_px=32, crop="centre"))
    assert facts.origins.tolist() == [[34, 19]]
    np.testing.assert_array_equal(tiles[0], image.pixels[19:51, 34:66])


def test_reduced_by_means_over_area() -> None:
    image = picture(120, 200)
    tiles, facts = cut_image(Path("a"), image, 0.25, PackConfig(tile_px=20, tile_mpp=0.5))
    assert (len(tiles), facts.resampled, facts.effective_mpp) == (15, "area", (0.5, 0.5))
    assert facts.origins.tolist() == [[x, y] for y in (0, 40, 80) for x in range(0, 200, 40)]
    means = image.pixels.reshape(60, 2, 100, 2, 3).mean((1, 3))
    assert np.abs(tiles[7] - means[20:40, 40:60]).max() <= 0.5


def test_as_it_is_within_two_per_cent() -> None:
    image = picture(50, 64)
    tiles, facts = cut_image(Path("a"), image, 0.495, PackConfig(tile_px=32, tile_mpp=0.5))
    assert (facts.resampled, facts.effective_mpp) == ("no", (0.495, 0.495))
    np.testing.assert_array_equal(tiles, split_image(image.pixels, 32))


def test_never_enlarged_unless_asked_for() -> None:
    small = picture(24, 30)
    for config, code in (
        (PackConfig(tile_px=32), "too_small"),
        (PackConfig(tile_px=32, crop="centre"), "too_small"),
        (PackConfig(tile_px=32, fit=True), "too_small"),
        (PackConfig(tile_px=20, tile_mpp=0.25), "too_coarse"),
    ):
        with pytest.raises(SlideError) as caught:
            cut_image(Path("a.png"), small, 0.5, config)
        assert caught.value.code == code
    tiles, facts = cut_image(Path("a"), small, 0.5, PackConfig(tile_px=32, fit=True, enlarge=True))
    assert (tiles.shape, facts.resampled) == ((1, 32, 32, 3), "cubic")
    assert facts.effective_mpp == (0.5 * 30 / 40, 0.5 * 24 / 32)


def test_settings_that_contradict_each_other() -> None:
    for wrong in (
        {"tile_px": 0},
        {"mpp": 0.0},
        {"tile_mpp": 90.0},
        {"fit": True, "tile_mpp": 0.5},
        {"mpp": 1.0, "nominal_mpp": 1.0},
    ):
        with pytest.raises(UsageError):
            PackConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_one_store_has_one_pixel_size(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file in files:
        file.write_bytes(encoded(".png", RGB))
    with pytest.raises(SlideError, match=r"0\.25 and 0\.5") as caught:
        write_store(tmp_path / "s", "s", [Patch(files[0], 0.25), Patch(files[1], 0.5)], PackConfig(tile_px=32))
    assert caught.value.code == "mpp_conflict"
    with pytest.raises(SlideError) as caught:
        write_store(tmp_path / "t", "s", [Patch(files[0], 0.25, "0" * 64)], PackConfig(tile_px=32))
    assert caught.value.code == "slide_changed"


@pytest.mark.parametrize("codec", ["lossless", "jpeg"])
def test_many_images_over_several_shards_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Literal["lossless", "jpeg"]
) -> None:
    rng = np.random.default_rng(3)
    images = [
        np.full((32 * rng.integers(1, 5), 32 * rng.integers(1, 6), 3), 2 * number, np.uint8) for number in range(100)
    ]
    files = [tmp_path / f"{number}.bmp" for number in range(100)]
    for file, pixels in zip(files, images, strict=True):
        file.write_bytes(encoded(".bmp", pixels))
    found: list[str] = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        config = PackConfig(tile_px=32, mpp=0.5, codec=codec)
        write_store(tmp_path / threads, "s", [Patch(file) for file in files], config)
        store = TileStore.open(tmp_path / threads)
        assert not problems_of_tiles(tmp_path / threads)
        assert len(store) == sum(pixels.shape[0] * pixels.shape[1] // 1024 for pixels in images) > 512
        numbers = image_numbers(store.origins)
        assert numbers.tolist() == sorted(numbers.tolist())
        tiles = store.read(np.arange(len(store)))
        assert np.abs(tiles[:, 0, 0, 0].astype(int) - 2 * numbers).max() <= (0 if codec == "lossless" else 1)
        found.append(store.fingerprint)
    assert found[0] == found[1], "threads change nothing"


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(SlideError, match=r"a\.png cannot be read"):
        read_image(tmp_path / "a.png")
