"""What a file and every library that opens it say of a slide: for an audit, which compares, and not for calibration.

Nothing is decoded here but what tiffslide's opening does; a file is to be checked by `check_file` first.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import openslide
import tiffslide

from wsi_lmc.slide.openslide_reader import read_properties
from wsi_lmc.slide.reader import MppStatement, resolution_statement
from wsi_lmc.slide.segments import PARSE_ERRORS
from wsi_lmc.units import LevelSize

_NUMBER = re.compile(r"[+-]?([0-9.,]{1,40}(e[+-]?[0-9]{1,3})?|nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class FileFacts:
    """A file's format, its levels, finest first, and all it says of its pixel size; empty where no library opens it."""

    vendor: str = ""
    level_sizes: tuple[LevelSize, ...] = ()
    statements: tuple[MppStatement, ...] = ()


def look_into(path: Path) -> FileFacts:
    """Ask OpenSlide and tiffslide alike; a statement that both pass on unchanged from the file stands there once."""
    found = [facts for facts in (_ask_openslide(path), _ask_tiffslide(path)) if facts is not None]
    if not found:
        return FileFacts()
    statements = {statement.source: statement for facts in reversed(found) for statement in facts.statements}
    ordered = sorted(statements.values(), key=lambda statement: statement.source)
    return FileFacts(found[0].vendor, found[0].level_sizes, tuple(ordered))


def openslide_version() -> str:
    """Version of the OpenSlide library in use, which is not that of its Python package."""
    return openslide.__library_version__


def _ask_openslide(path: Path) -> FileFacts | None:
    try:
        with openslide.OpenSlide(path) as slide:
            properties = read_properties(slide)
            sizes = tuple(LevelSize(width, height) for width, height in slide.level_dimensions)
    except openslide.OpenSlideError:
        return None
    vendor = str(properties.get(openslide.PROPERTY_NAME_VENDOR, ""))
    own = _pair("OpenSlide", properties, openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    return FileFacts(vendor, sizes, (*own, *_as_written(properties)))


def _ask_tiffslide(path: Path) -> FileFacts | None:
    with suppress(*PARSE_ERRORS, AttributeError), tiffslide.TiffSlide(path) as slide:
        properties: dict[str, object] = dict(slide.properties)
        sizes = tuple(LevelSize(int(width), int(height)) for width, height in slide.level_dimensions)
        vendor = str(properties.get("tiffslide.vendor") or "generic-tiff")
        own = _pair("tiffslide", properties, "tiffslide.mpp-x", "tiffslide.mpp-y")
        return FileFacts(vendor, sizes, (*own, *_as_written(properties)))
    return None


def _as_written(properties: Mapping[str, object]) -> tuple[MppStatement, ...]:
    """Aperio's MPP and the TIFF resolution, which both libraries quote from the file."""
    resolution = (replace(said, x=_number(said.x), y=_number(said.y)) for said in resolution_statement(properties))
    return (*_pair("aperio.MPP", properties, "aperio.MPP", "aperio.MPP"), *resolution)


def _pair(source: str, properties: Mapping[str, object], x: str, y: str) -> tuple[MppStatement, ...]:
    if properties.get(x) is None or properties.get(y) is None:
        return ()
    return (MppStatement(source, _number(properties[x]), _number(properties[y])),)


def _number(value: object) -> str:
    """A value as it stands in the file; other text is not passed on, since it may be anything, even a name."""
    text = str(value).strip()
    return text if _NUMBER.fullmatch(text) else "no number"
