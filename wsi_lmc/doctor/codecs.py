"""Codecs and libraries at work: pixels are compressed and decoded, stores and slides written and read back."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from wsi_lmc.doctor.check import Check, expect, tried

_SIDE = 256
_MOST_JPEG_ERROR = 3.0  # grey levels, mean, of smooth pixels at quality 95
_UM, _MPP_ERROR = 0.5, 0.001


def checks(out: Path) -> Iterator[Check]:
    """Each codec and library on its own, so that one that is broken does not hide the others."""
    del out
    pixels = smooth_pixels()
    with TemporaryDirectory(prefix="wsi-lmc-doctor-") as folder:
        place = Path(folder)
        alive: dict[str, tuple[str, Callable[[], str]]] = {
            "JPEG": ("simplejpeg imagecodecs", partial(_jpeg, pixels)),
            "JPEG 2000": ("imagecodecs", partial(_jpeg_2000, pixels)),
            "tile store, lossless (lz4, crc32c)": ("zarr", partial(_tile_store, place, pixels, "lossless")),
            "tile store, JPEG": ("zarr imagecodecs", partial(_tile_store, place, pixels, "jpeg")),
            "arrays (zstd, crc32c)": ("zarr google-crc32c", partial(_arrays, place)),
            "HDF5": ("h5py", partial(_hdf5, place)),
            "safetensors": ("safetensors", partial(_safetensors, place)),
            "OpenSlide": ("openslide-bin openslide-python", partial(_slide, place, pixels, "openslide")),
            "tiffslide": ("tiffslide tifffile", partial(_slide, place, pixels, "tiffslide")),
        }
        for name, (packages, probe) in alive.items():
            yield tried(name, probe, f"Run: pip install --force-reinstall {packages}")
        yield _direct(place, pixels)


def smooth_pixels() -> UInt8[np.ndarray, "h w 3"]:
    """Pixels that JPEG keeps well, different along both axes and in each colour."""
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float64)
    waves = [np.sin(x / 31), np.cos(y / 23), np.sin((x + 2 * y) / 47)]
    return np.stack([np.rint(150 + 60 * wave) for wave in waves], axis=-1).astype(np.uint8)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    from wsi_lmc.slide import decode_jpeg, encode_jpeg

    jpeg = encode_jpeg(pixels)
    back, half = np.empty_like(pixels), np.empty((_SIDE // 2, _SIDE // 2, 3), np.uint8)
    decode_jpeg(jpeg, back)
    decode_jpeg(jpeg, half, 2)
    _expect_alike(pixels, back)
    _expect_alike(pixels[::2, ::2], half)
    return "encodes, decodes, decodes at half the size"


def _jpeg_2000(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    import imagecodecs

    encoded = bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0))
    expect(np.array_equal(imagecodecs.jpeg2k_decode(encoded), pixels), "pixels differ after encoding without loss")
    return "encodes and decodes without loss"


def _tile_store(place: Path, pixels: UInt8[np.ndarray, "h w 3"], codec: Literal["lossless", "jpeg"]) -> str:
    from wsi_lmc.tilestore import TileRows, TileStore
    from wsi_lmc.tilewriter import TileStoreWriter

    path = place / f"{codec}.zarr"
    rows = TileRows(np.zeros((2, 2), np.int32), np.ones(2, np.float32), np.zeros(2, np.uint8))
    tiles = np.stack([pixels, pixels[::-1]])
    with TileStoreWriter(path, 2, _SIDE, codec) as writer:
        for row, tile in enumerate(tiles):
            writer.put(row, tile)
        writer.flush(2)
        about = {"slide": {"mpp": [_UM, _UM]}, "tile": {"px": _SIDE, "mpp": _UM, "effective_mpp": [_UM, _UM]}}
        writer.close(rows, about)
    back = TileStore.open(path).read(np.arange(2))
    if codec == "lossless":
        expect(np.array_equal(back, tiles), "pixels differ after storing without loss")
    else:
        _expect_alike(tiles, back)
    return "written and read back"


def _arrays(place: Path) -> str:
    """Also that a flipped bit is noticed, which is what the checksums are for."""
    from wsi_lmc.errors import StoreError
    from wsi_lmc.zarrio import create_group, read_array, write_array

    values = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    group = create_group(place / "arrays.zarr")
    write_array(group, "values", values)
    expect(np.array_equal(read_array(group, "values"), values), "values differ after storing")
    (chunk,) = (place / "arrays.zarr" / "values").glob("c.*")
    stored = bytearray(chunk.read_bytes())
    stored[len(stored) // 2] ^= 1
    chunk.write_bytes(stored)
    try:
        read_array(group, "values")
    except StoreError:
        return "written and read back; a flipped bit is noticed"
    raise ValueError("a flipped bit is not noticed")


def _hdf5(place: Path) -> str:
    import h5py

    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    with h5py.File(place / "values.h5", "w") as file:
        file["features"] = values
    with h5py.File(place / "values.h5", "r") as file:
        expect(np.array_equal(np.asarray(file["features"]), values), "values differ after storing")
    return f"written and read back by {h5py.version.hdf5_version}"


def _safetensors(place: Path) -> str:
    from safetensors.numpy import load_file, save_file

    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_file({"weights": values}, place / "weights.safetensors")
    expect(np.array_equal(load_file(place / "weights.safetensors")["weights"], values), "values differ after storing")
    return "written and read back"


def write_sample(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> Path:
    """A small slide, of four JPEG tiles a side."""
    from wsi_lmc.synthetic.writing import write_tiff

    write_tiff(path, np.tile(pixels, (4, 4, 1)), _UM, 95)
    return path


def _slide(place: Path, pixels: UInt8[np.ndarray, "h w 3"], reader: Literal["openslide", "tiffslide"]) -> str:
    from wsi_lmc.slide import ReadOptions, open_slide, openslide_version
    from wsi_lmc.units import LevelSize, SlidePoint

    path = write_sample(place / f"{reader}.tif", pixels)
    with open_slide(path, options=ReadOptions(reader)) as slide:
        expect(abs(slide.geometry.mpp.mean / _UM - 1) < _MPP_ERROR, f"{slide.geometry.mpp} um/px was read of {_UM}")
        region = slide.read_level(SlidePoint(0, 0), 0, LevelSize(_SIDE, _SIDE))
    expect(region.readable, "a slide that was just written cannot be decoded")
    _expect_alike(pixels, region.pixels)
    version = f"OpenSlide {openslide_version()} " if reader == "openslide" else ""
    return f"{version}reads a JPEG slide, its pixel size and its pixels"


def _direct(place: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> Check:
    """Direct decoding gives OpenSlide's pixels where both have the same libjpeg-turbo; else all is right, but slow."""
    from wsi_lmc.slide import open_slide

    name, slow = "direct decoding", "Run: pip install --upgrade simplejpeg imagecodecs openslide-bin"
    readers: list[str] = []

    def probe() -> str:
        with open_slide(write_sample(place / "direct.tif", pixels)) as slide:
            readers.append(slide.info.reader)
        return "the pixels are OpenSlide's, byte for byte"

    found = tried(name, probe, slow)
    if found.state == "ok" and readers != ["direct"]:
        return Check(name, "warning", "its pixels are not OpenSlide's, so slides are read by OpenSlide: slower", slow)
    return found


def _expect_alike(pixels: np.ndarray, others: np.ndarray) -> None:
    expect(pixels.shape == others.shape, f"{others.shape} came back of {pixels.shape}")
    error = float(np.abs(pixels.astype(np.float64) - others).mean())
    expect(error < _MOST_JPEG_ERROR, f"pixels are {error:.1f} grey levels off")
