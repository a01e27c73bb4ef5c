"""What a file may claim before anything of it is decoded: a few kilobytes can ask for terabytes of memory."""

from collections.abc import Iterable

from wsi_lmc.errors import SlideError
from wsi_lmc.units import LevelSize

LARGEST_SEGMENT = 1 << 28
"""Bytes of the largest native tile, decoded: 8,192 x 8,192 pixels of four bytes; scanners write 256 to 4,096."""


def check_segments(name: str, segments: Iterable[LevelSize], bytes_per_pixel: int) -> None:
    """Refuse a slide of which any native tile (or strip) is too large to be decoded whole, as it has to be.

    Raises:
        SlideError: ``too_large``.
    """
    for segment in segments:
        if segment.width * segment.height * bytes_per_pixel > LARGEST_SEGMENT:
            raise SlideError(
                "too_large",
                f"{name} has native tiles of {segment.width} x {segment.height} pixels",
                f"{LARGEST_SEGMENT >> 20} MiB a tile at most",
                "If the slide is real, convert it to smaller tiles (vips tiffsave --tile).",
            )
