"""Slides that name a patient wherever a scanner or a clerk could, and a search through every byte of what came out.

Every canary tells where it was planted, so that a finding names its way.
"""

import base64
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import tifffile
import zarr

from tests.tiffs import encode_tiles, halve
from wsi_lmc.zarrio import register_jpeg

WORD = "canary"
FOLDER, FILE = "CanaryFolder Doe^Jane", "CanaryFile Doe Jane"
_COMMENT, _EXIF = 0xFE, 0xE1
_ABOUT = (
    "Aperio Image Library v12.0.15 \r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=85|AppMag = 20"
    "|MPP = {mpp}|Filename = CanaryAperioFilename|User = CanaryAperioUser|Title = CanaryAperioTitle"
    "|Patient = CanaryAperioPatient|Barcode = CanaryAperioBarcode"
)
_TAGS = {269: "CanaryDocumentName", 285: "CanaryPageName", 305: "CanarySoftware", 315: "CanaryArtist",
         316: "CanaryHostComputer", 33432: "CanaryCopyright"}  # fmt: skip


def write_canary_svs(path: Path, pixels: np.ndarray, mpp: object = 0.5) -> Path:
    """An SVS with canaries in its description, tags, JPEG comments and Exif, label and macro."""
    height, width = pixels.shape[:2]
    about = _ABOUT.format(width=width, height=height, mpp=mpp)
    tags: list[Any] = [(code, 2, 0, text, True) for code, text in _TAGS.items()]
    common: dict[str, Any] = {"metadata": None, "software": False, "extratags": tags}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate([pixels, halve(pixels)]):
            tiles = [with_canaries(tile) for tile in encode_tiles(level, 256)]
            tiff.write(
                iter(tiles), shape=level.shape, dtype=np.uint8, tile=(256, 256), compression=7, photometric="ycbcr",
                subsampling=(2, 2), description=about, **common,
            )  # fmt: skip
            if number == 0:
                tiff.write(halve(halve(level)), photometric="rgb", description=about, rowsperstrip=16, **common)
        for name, kind in (("label", 1), ("macro", 9)):  # as Aperio marks them, and OpenSlide knows them by
            said = f"Aperio Image Library v12.0.15 \r\n{name} 300x100 Canary{name}Description"
            written = _written(f"Canary{name}Pixels ", (100, 300, 3))
            tiff.write(written, photometric="rgb", subfiletype=kind, description=said, **common)
    return path


def with_canaries(jpeg: bytes) -> bytes:
    """A JPEG with a comment and an Exif segment that name somebody."""
    segments = [(_COMMENT, b"CanaryJpegComment"), (_EXIF, b"Exif\0\0CanaryJpegExif")]
    said = b"".join(bytes((0xFF, name)) + (len(text) + 2).to_bytes(2, "big") + text for name, text in segments)
    return jpeg[:2] + said + jpeg[2:]


def _written(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose bytes are a text, again and again."""
    return np.resize(np.frombuffer(text.encode(), np.uint8), shape)


def findings(root: Path, allowed: tuple[str, ...] = ()) -> list[str]:
    """Where below a folder something names a canary, but for ``allowed`` words: in names of files and their content."""
    found: list[str] = []
    for path in sorted(root.rglob("*")):
        where = path.relative_to(root).as_posix()
        found += [f"name of {where}"] * bool(canaries_in(where.encode(), allowed))
        for part, content in _contents(path) if path.is_file() else ():
            found += [f"{where}{part}: {text}" for text in canaries_in(content, allowed)]
    for path in sorted(root.rglob("zarr.json")):
        found += [f"{path.parent.relative_to(root)}, decoded: {text}" for text in _decoded(path.parent, allowed)]
    return found


def canaries_in(content: bytes, allowed: tuple[str, ...] = ()) -> list[str]:
    """Canaries in bytes: as they are, in UTF-16, as hex and as base64; with what stands around them."""
    for word in sorted(allowed, key=len, reverse=True):
        content = content.replace(word.encode(), b"")
    lowered = content.lower()
    found = [content[max(0, at - 20) : at + 40] for at in _positions(lowered, WORD.encode())]
    for encoding in ("utf-16-le", "utf-16-be"):
        found += [content[at : at + 60] for at in _positions(lowered, WORD.encode(encoding))]
    found += [content[at : at + 60] for at in _positions(lowered, WORD.encode().hex().encode())]
    for spelling in (WORD, WORD.capitalize(), WORD.upper()):
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + spelling.encode())
            kernel = coded[[0, 2, 3][shift] : len(coded) - [0, 4, 4][shift] or None]
            found += [content[at : at + 60] for at in _positions(content, kernel)]
    return [repr(text) for text in found[:3]]


def _positions(content: bytes, word: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(word), content)]


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and what is packed in it."""
    content = path.read_bytes()
    yield "", content
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield ", names", "\n".join(archive.namelist()).encode()
            for name in archive.namelist():
                yield f", {name}", archive.read(name)
    if content.startswith(b"\x89PNG"):
        yield from _chunks_of_png(content)
    if h5py.is_hdf5(path):
        yield from _parts_of_hdf5(path)


def _chunks_of_png(content: bytes) -> Iterator[tuple[str, bytes]]:
    stream, packed = io.BytesIO(content[8:]), b""
    while head := stream.read(8):
        name, chunk = head[4:], stream.read(int.from_bytes(head[:4], "big"))
        stream.read(4)
        if name == b"IDAT":
            packed += chunk
        elif name in (b"zTXt", b"iTXt") and b"\0\0" in chunk:
            for at in _positions(chunk, b"\x78"):
                try:
                    yield f", {name.decode()}", zlib.decompress(chunk[at:])
                except zlib.error:
                    continue
    yield ", pixels", zlib.decompress(packed)


def _parts_of_hdf5(path: Path) -> Iterator[tuple[str, bytes]]:
    with h5py.File(path) as file:
        parts: list[tuple[str, Any]] = [("/", file)]
        file.visititems(lambda name, part: parts.append((name, part)))
        for name, part in parts:
            yield f", attributes of {name}", f"{name} {dict(part.attrs)!r}".encode()
            if isinstance(part, h5py.Dataset):
                yield f", values of {name}", np.asarray(part[()]).tobytes()


def _decoded(group: Path, allowed: tuple[str, ...]) -> list[str]:
    """Canaries in attributes and decompressed values of a zarr group or array."""
    register_jpeg()
    node = zarr.open(group, mode="r")
    found = canaries_in(repr(node.attrs.asdict()).encode(), allowed)
    if isinstance(node, zarr.Array):
        found += canaries_in(np.asarray(cast("zarr.Array[Any]", node)[...]).tobytes(), allowed)
    return found
