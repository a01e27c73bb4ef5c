"""Opening a slide: choose a reader, find out why a file will not open, calibrate."""

import logging
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openslide
import tifffile

from wsi_lmc.errors import SlideError, without_quotes
from wsi_lmc.passing import from_text
from wsi_lmc.slide.calibration import GivenMpp, calibrate
from wsi_lmc.slide.direct_reader import DirectReader
from wsi_lmc.slide.directories import COPY_AGAIN, TIFF_MAGIC, check_directories
from wsi_lmc.slide.geometry import SlideGeometry, whole_slide
from wsi_lmc.slide.handles import HandlePool
from wsi_lmc.slide.openslide_reader import OpenSlideReader
from wsi_lmc.slide.proof import compare
from wsi_lmc.slide.reader import Reader
from wsi_lmc.slide.samples import check_samples
from wsi_lmc.slide.segments import PARSE_ERRORS, read_tables
from wsi_lmc.slide.slide import Resample, Slide, Sources
from wsi_lmc.slide.tiffslide_reader import TiffSlideReader
from wsi_lmc.threads import Threads
from wsi_lmc.units import LevelSize, SlideSize

ReaderName = Literal["auto", "direct", "openslide", "tiffslide"]

_MOST_STRETCH = 4.0


@dataclass(frozen=True)
class ReadOptions:
    """How a slide is read. ``resample`` is what may reduce tiles; ``threads`` never changes a pixel."""

    reader: ReaderName = "auto"
    resample: Resample = "dct"
    threads: int = 1


def open_slide(
    path: Path, slide_id: str | None = None, given: GivenMpp | None = None, options: ReadOptions | None = None
) -> Slide:
    """Open a slide, calibrated. ``slide_id`` defaults to the file's stem.

    Raises:
        SlideError: with a code that tells a missing file from garbage, a damaged slide, an unsupported one, and an
            unknown pixel size.
    """
    check_file(path)
    options = options or ReadOptions()
    source = _open_reader(path, options.reader)
    try:
        _check_levels(path, source.level_sizes)
        if _is_tiff(path):
            check_samples(path, source.level_sizes[0])
        calibration = calibrate(source.mpp_statements(), given)
    except SlideError:
        source.close()
        raise
    finest = source.level_sizes[0]
    size = SlideSize(finest.width, finest.height)
    downsamples = tuple((size.width / level.width + size.height / level.height) / 2.0 for level in source.level_sizes)
    geometry = SlideGeometry(size, calibration.mpp, downsamples, source.bounds or whole_slide(size))
    try:
        sources = _choose_source(path, source, downsamples, options)
    except SlideError:
        source.close()
        raise
    return Slide(slide_id or path.stem, sources, geometry, calibration.source)


def check_file(path: Path) -> None:
    """Refuse what cannot be a slide before any library touches it (a FIFO would block for ever).

    Raises:
        SlideError: ``missing``, ``folder``, ``not_a_file``, ``empty_file``, ``truncated`` (a TIFF that lost its end),
            ``damaged`` or ``io``.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its messages name files and quote them; ours have codes
    try:
        status = path.stat()
    except OSError as error:
        raise SlideError("missing", f"no file {path.name}", "a slide", "Check the path and permissions.") from error
    if stat.S_ISDIR(status.st_mode):
        raise SlideError("folder", f"{path.name} is a folder", "a slide file", "Give the file that stands for it.")
    if not stat.S_ISREG(status.st_mode):
        raise SlideError("not_a_file", f"{path.name} is no regular file", "a slide file", "Give the file itself.")
    if status.st_size == 0:
        raise SlideError("empty_file", f"{path.name} has 0 bytes", "a slide", "Copy the slide again.")
    if _is_tiff(path):
        check_directories(path, status.st_size)
        _check_tiff_is_whole(path, status.st_size)


def _check_tiff_is_whole(path: Path, size: int) -> None:
    """Libraries open a TIFF that was cut short and drop levels in silence; the directories tell how long it was."""
    try:
        with tifffile.TiffFile(path) as tiff:
            ends = [
                max(
                    (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)),
                    default=0,
                )
                for page in tiff.pages
            ]
    except PARSE_ERRORS as error:
        raise SlideError(
            "damaged", f"unreadable TIFF directory in {path.name}: {_said(error, path)}", "a whole TIFF", COPY_AGAIN
        ) from error
    if max(ends, default=0) > size:
        raise SlideError("truncated", f"{path.name} ends at byte {size}", f"{max(ends)} bytes at least", COPY_AGAIN)


def _check_levels(path: Path, levels: tuple[LevelSize, ...]) -> None:
    """Refuse levels of another shape than the finest, which is then likely to be damaged and absurdly large.

    Wide of the mark only: some scanners fill up the last levels to whole tiles.
    """
    finest = levels[0]
    for level in levels[1:]:
        stretch = (finest.width * level.height) / max(finest.height * level.width, 1)
        if not 1 / _MOST_STRETCH < stretch < _MOST_STRETCH:
            raise SlideError(
                "damaged",
                f"{path.name} has levels of {finest.width} x {finest.height} and {level.width} x {level.height} pixels",
                "levels of one shape",
                COPY_AGAIN,
            )


def _choose_source(path: Path, reader: Reader, downsamples: tuple[float, ...], options: ReadOptions) -> Sources:
    """Decode directly where the file allows it and the pixels prove to be the reader's own."""
    if options.reader in ("auto", "direct"):
        tables = read_tables(path, reader.level_sizes)
        usable = tables is not None and not any(table.sparse for table in tables)
        if tables is not None and usable and reader.bounds is None:
            direct = DirectReader(path, tables, reader.background)
            with Threads(options.threads) as threads:
                agreement = compare(direct, reader, downsamples, threads)
            if agreement.equal or options.reader == "direct":
                return Sources(reader, direct, agreement, options.resample, options.threads, path)
            direct.close()
        if options.reader == "direct":
            raise SlideError(
                "unsupported",
                f"{path.name} is not made of JPEG or JPEG 2000 tiles, or misses some",
                "a TIFF family that can be decoded directly",
                "Use --reader auto.",
            )
    name: ReaderName = "tiffslide" if reader.name == "tiffslide" else "openslide"
    pool = HandlePool(_open_reader(path, name), lambda: _open_reader(path, name))
    return Sources(reader, pool, None, options.resample, options.threads, path)


def _open_reader(path: Path, reader: ReaderName) -> Reader:
    if reader == "tiffslide":
        return _open_tiffslide(path)
    try:
        return _ask_openslide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        if reader in ("auto", "direct") and _is_tiff(path):
            return _open_tiffslide(path)
        raise _unsupported(path, _said(error, path)) from error
    except openslide.OpenSlideError as error:
        raise SlideError(
            "damaged",
            f"OpenSlide: {_said(error, path)}",
            "a readable slide",
            "Copy it again or leave it out.",
        ) from (from_text(str(error)) or error)


def _ask_openslide(path: Path) -> Reader:
    """Ask twice: where the disk failed OpenSlide, it calls the format unsupported, and keeps to itself why."""
    try:
        return OpenSlideReader(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return OpenSlideReader(path)


def _open_tiffslide(path: Path) -> Reader:
    if not _is_tiff(path):
        raise _unsupported(path, "tiffslide reads TIFF families only")
    try:
        return TiffSlideReader(path)
    except PARSE_ERRORS as error:
        raise SlideError(
            "unsupported", f"tiffslide: {_said(error, path)}", "a TIFF slide", "Try --reader openslide."
        ) from error


def _unsupported(path: Path, said: str) -> SlideError:
    head = _magic(path)
    if head[128:132] == b"DICM":
        return SlideError(
            "unsupported", f"{path.name} is DICOM, but no slide: {said}", "DICOM WSI", "Export it as a pyramid."
        )
    if head[:4] in TIFF_MAGIC:
        return SlideError(
            "unsupported",
            f"{path.name} is TIFF, but no slide: {said}",
            "a tiled pyramid",
            "Convert it (vips tiffsave).",
        )
    return SlideError(
        "not_a_slide",
        f"{path.name} begins with {head[:8]!r}",
        "a slide format of OpenSlide or tiffslide",
        "Leave it out or convert it.",
    )


def _is_tiff(path: Path) -> bool:
    return _magic(path)[:4] in TIFF_MAGIC


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError as error:
        raise SlideError(
            "io", f"cannot read {path.name} ({error.strerror})", "a readable file", "Check permissions."
        ) from error


def _said(error: Exception, path: Path) -> str:
    """What a library says, without the folder and without what it quotes."""
    return without_quotes(str(error).replace(str(path), path.name))
