"""Image files that are no slides (PNG, JPEG, TIFF, BMP) as 8-bit RGB, strictly: what cannot be read right is refused.

Notable: libraries give back half a JPEG, drop the lower half of 16 bits and turn grey or CMYK into RGB without a word.
Grey has no stains, 12 bits in a 16-bit file would be black, and CMYK needs a colour profile; so none of it is guessed
at. Pixels are taken as they are stored: a camera's note on how to turn the picture is not followed.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.slide import ReadError, check_file, check_picture, decode_jpeg
from wsi_lmc.slide.limits import LARGEST_SEGMENT
from wsi_lmc.units import LevelSize

LONGEST_SIDE = 1 << 14
"""Pixels of the longer side of an image at most; larger ones are slides, and for ``wsi-lmc tile``."""
_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_COLOUR = {2: "RGB", 3: "a palette", 6: "RGBA"}  # 0 and 4 are grey
_DAMAGED = (ReadError, RuntimeError, ValueError, IndexError, cv2.error, struct.error)
"""What the decoders raise on damaged files; imagecodecs' own errors are RuntimeErrors."""


@dataclass(frozen=True)
class Picture:
    """An image's pixels; ``transparent`` says which were not opaque and were laid on white, None where all were."""

    pixels: UInt8[np.ndarray, "y x 3"]
    transparent: Bool[np.ndarray, "y x"] | None = None


def read_image(path: Path) -> UInt8[np.ndarray, "y x 3"]:
    """An image file as RGB.

    Raises:
        SlideError: see :func:`decode_image`; also what :func:`wsi_lmc.slide.check_file` refuses.
    """
    return decode_image(path, load_image(path)).pixels


def load_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        SlideError: ``missing``, ``folder``, ``not_a_file``, ``empty_file``, ``truncated``, ``damaged`` or ``io``.
    """
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        said = error.strerror or "error"
        raise SlideError("io", f"{path.name} cannot be read ({said})", "a readable file", "Check the disk.") from error


def decode_image(path: Path, data: bytes) -> Picture:
    """The pixels of an image file with the bytes ``data``; transparent ones lie on white.

    Raises:
        SlideError: ``not_an_image`` (damaged, or no image), ``unsupported`` (grey, 16 bits, CMYK), ``too_large``.
    """
    try:
        pixels = _decode(path, data)
    except _DAMAGED as error:
        raise _not_an_image(path, str(error).splitlines()[0][:120] if str(error) else "damaged") from error
    if pixels.shape[2] == 3:
        return Picture(pixels)
    alpha = pixels[..., 3:]
    if (alpha == 255).all():
        return Picture(np.ascontiguousarray(pixels[..., :3]))
    share = alpha.astype(np.uint16)
    laid = (pixels[..., :3].astype(np.uint16) * share + 255 * (255 - share) + 127) // 255
    return Picture(laid.astype(np.uint8), alpha[..., 0] < 255)


def _decode(path: Path, data: bytes) -> UInt8[np.ndarray, "y x c"]:
    """Pixels as RGB or RGBA, by the kind of file that its first bytes tell."""
    if data.startswith(_JPEG):
        return _decode_jpeg(path, data)
    if data.startswith(_PNG):
        width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
        _check_size(path, LevelSize(width, height))
        _check_kind(path, f"grey, in {bits} bits" if colour not in _PNG_COLOUR else "in 16 bits" if bits == 16 else "")
        return _decode_by_cv2(path, data)
    if data.startswith(_TIFF):
        _check_size(path, check_picture(path))
        return _decode_tiff(path, data)
    if data.startswith(_BMP):
        width, height = struct.unpack("<ii", data[18:26])
        _check_size(path, LevelSize(abs(width), abs(height)))
        return _decode_by_cv2(path, data)
    raise ReadError("no PNG, JPEG, TIFF or BMP")


def _decode_jpeg(path: Path, data: bytes) -> UInt8[np.ndarray, "y x 3"]:
    try:
        found: tuple[Any, ...] = simplejpeg.decode_jpeg_header(data)
    except KeyError:  # of a colour space that simplejpeg has no name for
        found = (1, 1, "in a rare colour space")
    height, width, colour = int(found[0]), int(found[1]), str(found[2])
    named = {"YCbCr": "", "RGB": "", "Gray": "grey, in 8 bits", "CMYK": "in CMYK", "YCCK": "in CMYK"}
    _check_kind(path, named.get(colour, colour))
    _check_size(path, LevelSize(width, height))
    pixels = np.empty((height, width, 3), np.uint8)
    decode_jpeg(data, pixels)
    return pixels


def _decode_tiff(path: Path, data: bytes) -> UInt8[np.ndarray, "y x c"]:
    found = np.asarray(imagecodecs.tiff_decode(data))
    if found.ndim == 2:  # a palette: grey has been refused
        found = np.asarray(imagecodecs.tiff_decode(data, asrgb=True))
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] not in (3, 4):
        _check_kind(path, f"of shape {found.shape}, {found.dtype}")
    return found


def _decode_by_cv2(path: Path, data: bytes) -> UInt8[np.ndarray, "y x c"]:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ReadError("damaged, or cut short")
    _check_kind(path, "grey, in 8 bits" if found.ndim == 2 else "" if found.dtype == np.uint8 else f"{found.dtype}")
    code = cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(found, code), np.uint8)


def _check_kind(path: Path, unusual: str) -> None:
    if unusual:
        raise SlideError(
            "unsupported",
            f"the pixels of {path.name} are {unusual}",
            "RGB in 8 bits",
            "Convert it, if it is a bright-field image; or leave it out.",
        )


def _check_size(path: Path, size: LevelSize) -> None:
    """Refuse, before anything is decoded, what would fill the memory, or is a slide rather than an image."""
    if not (0 < max(size.width, size.height) <= LONGEST_SIDE) or size.width * size.height * 4 > LARGEST_SEGMENT:
        raise SlideError(
            "too_large",
            f"{path.name} has {size.width} x {size.height} pixels",
            f"{LONGEST_SIDE} a side and {LARGEST_SEGMENT // 4:,} in all at most",
            "Tile it like a slide ('wsi-lmc tile'), or cut it into smaller images.",
        )


def _not_an_image(path: Path, said: str) -> SlideError:
    return SlideError(
        "not_an_image", f"{path.name} cannot be read ({said})", "PNG, JPEG, TIFF or BMP", "Copy it again."
    )
