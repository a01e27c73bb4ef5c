"""What kind of pixels a slide has: colour in 8 bits is read, everything else is refused by name.

OpenSlide turns grey into RGB and drops the lower half of 16 bits without a word. Stains cannot be told in grey, so
such a slide would be "empty"; and 12 bits in a 16-bit file would be black.
"""

from pathlib import Path

import tifffile

from wsi_lmc.errors import SlideError
from wsi_lmc.slide.segments import PARSE_ERRORS
from wsi_lmc.units import LevelSize

_COLOUR = {2: 3, 3: 1, 6: 3}
"""How many samples a pixel has at least, by the PhotometricInterpretation: RGB, palette, YCbCr."""


def check_samples(path: Path, finest: LevelSize) -> None:
    """Refuse a TIFF whose finest level is not colour in 8 bits; where no image has that size, it cannot be told.

    Raises:
        SlideError: ``unsupported``.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = (page for page in tiff.pages if isinstance(page, tifffile.TiffPage))
            page = next((p for p in pages if (p.imagewidth, p.imagelength) == (finest.width, finest.height)), None)
            found = None if page is None else _unusual(page)
    except PARSE_ERRORS:
        return
    if found is not None:
        raise _unsupported(path, found)


def check_picture(path: Path) -> LevelSize:
    """Refuse a TIFF whose first image is not colour in 8 bits; its size, as the directory states it.

    Raises:
        SlideError: ``unsupported``, or ``damaged`` where its directory cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            found, size = _unusual(page), LevelSize(page.imagewidth, page.imagelength)
    except PARSE_ERRORS as error:
        said = type(error).__name__
        raise SlideError(
            "damaged", f"unreadable directory in {path.name} ({said})", "a TIFF", "Copy it again."
        ) from error
    if found is not None:
        raise _unsupported(path, found)
    return size


def _unsupported(path: Path, found: str) -> SlideError:
    return SlideError(
        "unsupported",
        f"the pixels of {path.name} are {found}",
        "colour (RGB, YCbCr or a palette) in 8 bits",
        "Convert it, if it is a bright-field slide (vips).",
    )


def _unusual(page: tifffile.TiffPage) -> str | None:
    """What sets a page's pixels apart from 8-bit colour, in words; None where nothing does."""
    bits, form, photometric = int(page.bitspersample), int(page.sampleformat), int(page.photometric)
    if photometric in (0, 1):
        return f"grey, in {bits} bits"
    if bits != 8:
        return f"in {bits} bits"
    if form not in (1, 4):  # 4: undefined
        return "not whole numbers from 0 up"
    if page.samplesperpixel < _COLOUR.get(photometric, 1 << 16):
        return f"of photometric interpretation {photometric}, with {page.samplesperpixel} samples"
    return None
