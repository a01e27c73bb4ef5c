"""One segment's bytes to pixels, by libjpeg-turbo (through simplejpeg) or OpenJPEG (through imagecodecs).

Both release the GIL, decode into given memory, and give the very pixels OpenSlide gives (``tests/test_slide.py``).
"""

import struct
from typing import cast

import imagecodecs
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from wsi_lmc.slide.reader import ReadError
from wsi_lmc.slide.segments import SegmentTable
from wsi_lmc.units import LevelSize

_JPEG_ERRORS = (ValueError, KeyError)  # KeyError: of a colour space that simplejpeg has no name for
_CODESTREAM = b"\xff\x4f\xff\x51"  # its start, and the header with its size
_END_OF_IMAGE = b"\xff\xd9"
_PADDING = 64  # bytes within which writers fill up a segment

Denominator = int  # 1, 2, 4 or 8: each axis is reduced by it while decoding, in the DCT domain


def decode_segment(
    table: SegmentTable, data: bytes | None, out: UInt8[np.ndarray, "h w 3"], denominator: Denominator = 1
) -> None:
    """Decode a segment's bytes, as they stand in the file, into ``out`` (contiguous RGB, already reduced).

    Raises:
        ReadError: damaged, or of another size than the directory says.
    """
    if data is None:
        raise ReadError("the file ends before this segment, or the disk fails")
    if table.codec == "jpeg":
        decode_jpeg(b"".join((table.head, memoryview(data)[2:])), out, denominator)
        return
    if denominator != 1:
        raise ValueError("only JPEG is reduced while decoding")
    _check_codestream(data, LevelSize(out.shape[1], out.shape[0]))
    try:
        pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    except (RuntimeError, ValueError) as error:
        raise ReadError(str(error)) from error
    if pixels.shape != out.shape or pixels.dtype != np.uint8:
        raise ReadError(f"segment of {pixels.shape} {pixels.dtype}, expected {out.shape} uint8")
    out[...] = pixels


def decode_jpeg(
    data: bytes | UInt8[np.ndarray, " bytes"], out: UInt8[np.ndarray, "h w 3"], denominator: Denominator = 1
) -> None:
    """Decode a whole JPEG file into ``out``, which must be contiguous and of exactly its (reduced) size.

    A JPEG that libjpeg-turbo only warns of (cut short, wrong marker inside) counts as damaged.

    Raises:
        ReadError: damaged, or of another size.
    """
    height, width = out.shape[:2]
    room = cast(bytearray, out)  # any buffers serve
    try:
        if denominator == 1:  # a larger image would not fit, which is refused; of a smaller one the shape tells
            found = simplejpeg.decode_jpeg(cast(bytes, data), "RGB", buffer=room).shape
            if found != out.shape:
                raise ReadError(f"JPEG of {found[1]} x {found[0]}, expected {width} x {height}")
            return
        _check_size(data, LevelSize(width * denominator, height * denominator))
        simplejpeg.decode_jpeg(cast(bytes, data), "RGB", min_height=height, min_width=width, buffer=room)
    except _JPEG_ERRORS as error:
        raise ReadError(str(error)) from error


def looks_whole(jpeg: UInt8[np.ndarray, " _"], segment: LevelSize) -> bool:
    """Whether bytes begin as a JPEG of a segment's size and end as one, but for zeros after its end."""
    end = jpeg[-len(_END_OF_IMAGE) :].tobytes()
    if end != _END_OF_IMAGE and not jpeg[-_PADDING:].tobytes().rstrip(b"\0").endswith(_END_OF_IMAGE):
        return False
    try:
        _check_size(jpeg, segment)
    except (ReadError, *_JPEG_ERRORS):
        return False
    return True


def encode_jpeg(tile: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """RGB as JPEG of quality 95 without chroma subsampling."""
    return cast(bytes, imagecodecs.jpeg8_encode(tile, level=95, subsampling="444"))


def _check_codestream(data: bytes, expected: LevelSize) -> None:
    """Refuse JPEG 2000 whose header names another size: OpenJPEG would take the memory for it.

    Raises:
        ReadError: it does, or there is no header.
    """
    at = data.find(_CODESTREAM) + len(_CODESTREAM)
    sides = data[at + 4 : at + 4 + 16]  # after the header's length and the profile: right, bottom, left, top
    if at < len(_CODESTREAM) or len(sides) < 16:
        raise ReadError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack(">4I", sides)
    if (right - left, bottom - top) != (expected.width, expected.height):
        raise ReadError(f"JPEG 2000 of {right - left} x {bottom - top}, expected {expected.width} x {expected.height}")


def _check_size(jpeg: bytes | UInt8[np.ndarray, " _"], expected: LevelSize) -> None:
    """Refuse a JPEG whose header names another size: a larger one would not fit, a smaller one mislead.

    Raises:
        ReadError: it does.
        ValueError, KeyError: no JPEG at all.
    """
    height, width = simplejpeg.decode_jpeg_header(cast(bytes, jpeg), strict=False)[:2]
    if (height, width) != (expected.height, expected.width):
        raise ReadError(f"JPEG of {width} x {height}, expected {expected.width} x {expected.height}")
