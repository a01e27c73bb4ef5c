"""TIFF slides of the kinds that scanners write, made of given pixels: for tests of reading."""

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

_TABLE_MARKERS = (0xDB, 0xC4)  # quantisation and Huffman tables
_JPEG_TABLES = 347
_APERIO = "Aperio Image Library v12.0.15 \r\n{}x{}|MPP = {}"


@dataclass(frozen=True)
class Kind:
    """How a TIFF slide is laid out; ``tables`` keeps JPEG tables once a level, as Aperio and others do."""

    tile: int = 256
    rgb: bool = False
    tables: bool = False
    bigtiff: bool = False
    subsampling: str = "420"
    codec: str = "jpeg"
    aperio: bool = False


def write_tiff(path: Path, levels: list[np.ndarray], kind: Kind, um: float = 0.5) -> Path:
    """Write a pyramid, finest level first."""
    ycbcr = kind.codec == "jpeg" and not kind.rgb
    with tifffile.TiffWriter(path, bigtiff=kind.bigtiff) as tiff:
        for number, pixels in enumerate(levels):
            tiles = [_encode(tile, kind) for tile in _cut(pixels, kind.tile)]
            tables, tiles = _split_tables(tiles) if kind.tables else (b"", tiles)
            tiff.write(
                iter(tiles),
                shape=pixels.shape,
                dtype=np.uint8,
                tile=(kind.tile, kind.tile),
                compression=7 if kind.codec == "jpeg" else 33005,
                photometric="ycbcr" if ycbcr else "rgb",
                subsampling=((2, 2) if kind.subsampling == "420" else (1, 1)) if ycbcr else None,
                subfiletype=int(number > 0) if not kind.aperio else 0,
                description=f"Aperio Image Library v12.0.15 \r\n{pixels.shape[1]}x{pixels.shape[0]}|MPP = {um}"
                if kind.aperio
                else None,
                resolution=(1e4 / um / 2**number,) * 2,
                resolutionunit="CENTIMETER",
                extratags=[(_JPEG_TABLES, 7, len(tables), tables, True)] if tables else [],
                metadata=None,
                software=False,
            )
    if kind.rgb:
        _say_rgb(path)
    return path


def encode_tiles(pixels: np.ndarray, side: int) -> list[bytes]:
    """A level's tiles as JPEG files, row-major."""
    return [_encode(tile, Kind(side)) for tile in _cut(pixels, side)]


def halve(pixels: np.ndarray) -> np.ndarray:
    """The next level, by area."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    return pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)


def _say_rgb(path: Path) -> None:
    """tifffile always calls JPEG tiles YCbCr; Aperio's scanners do not."""
    with tifffile.TiffFile(path) as file:
        tags = [page.tags["PhotometricInterpretation"] for page in file.pages if isinstance(page, tifffile.TiffPage)]
        at, order = [tag.valueoffset for tag in tags], file.byteorder
    with path.open("r+b") as raw:
        for offset in at:
            raw.seek(offset)
            raw.write((2).to_bytes(2, "little" if order == "<" else "big"))


def _cut(pixels: np.ndarray, side: int) -> list[np.ndarray]:
    """Whole tiles, row-major; the border's are filled with what no slide shows, so that padding is noticed."""
    height, width = pixels.shape[:2]
    padded = np.full((-(-height // side) * side, -(-width // side) * side, 3), (255, 0, 255), np.uint8)
    padded[:height, :width] = pixels
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    split = padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return [np.ascontiguousarray(tile) for tile in split.reshape(-1, side, side, 3)]


def _encode(tile: np.ndarray, kind: Kind) -> bytes:
    if kind.codec == "jpeg2000":
        return bytes(imagecodecs.jpeg2k_encode(tile, level=40, codecformat="j2k"))
    if kind.rgb:
        jpeg = bytes(imagecodecs.jpeg8_encode(tile, level=85, colorspace="rgb", outcolorspace="rgb"))
        return _without_adobe(jpeg)
    return bytes(imagecodecs.jpeg8_encode(tile, level=85, subsampling=kind.subsampling))


def _segments(jpeg: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Marker segments up to the first scan, and the rest."""
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big") + 2
        found.append((jpeg[at + 1], jpeg[at : at + length]))
        at += length
    return found, jpeg[at:]


def _without_adobe(jpeg: bytes) -> bytes:
    """Scanners say in the TIFF directory alone that their JPEG holds RGB."""
    found, rest = _segments(jpeg)
    return jpeg[:2] + b"".join(data for marker, data in found if marker not in (0xEE, 0xE0)) + rest


def _split_tables(jpegs: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The tables that all tiles share, as a JPEG of nothing else, and the tiles without them."""
    tables: set[bytes] = set()
    tiles = []
    for jpeg in jpegs:
        found, rest = _segments(jpeg)
        tables.add(b"".join(data for marker, data in found if marker in _TABLE_MARKERS))
        tiles.append(jpeg[:2] + b"".join(data for marker, data in found if marker not in _TABLE_MARKERS) + rest)
    (shared,) = tables
    return b"\xff\xd8" + shared + b"\xff\xd9", tiles
