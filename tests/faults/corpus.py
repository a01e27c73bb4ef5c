"""Bad slides, made by code, each with what must become of it: after OpenSlide's own cases, and the table of faults.

A file's name says what is wrong with it. ``after`` is the case of OpenSlide's suite that it follows, rebuilt from its
description, since that suite's base slides are not here. Good slides are among them: one bad slide never stops others.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np

from tests.faults.patching import (
    Field,
    bomb,
    change_segments,
    cut,
    drop_segments,
    number_of,
    overwrite,
    page_count,
    point_back,
    replace_bytes,
    set_tile_count,
    set_tile_offset,
    swap_entries,
    tag,
    then,
)
from tests.faults.samples import (
    APERIO,
    BIG,
    HEIGHT,
    JPEG,
    PALETTE,
    UM,
    WIDTH,
    aperio,
    aperio_with_picture,
    deepen,
    generic,
    jp2k,
    opaque,
    plain,
    tissue,
)
from tests.tiffs import write_tiff

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One file: the code that its slide fails with, or else its state, and the ``row`` of the table of faults."""

    name: str
    row: int
    expected: str
    make: Make
    after: str = ""


def _bigtiff(path: Path) -> Path:
    return write_tiff(path, [tissue()], BIG, UM)


def _aperio_saying(said: bytes, change: Make = lambda path: None) -> Make:
    """An Aperio slide of 0.25 um/px that says something else, of the same length, where its pixel size stands."""

    def make(path: Path) -> None:
        write_tiff(path, [tissue()], APERIO, 0.25)
        replace_bytes(path, b"|MPP = 0.25", said)
        change(path)

    return make


def _labelled(path: Path) -> Path:
    return aperio_with_picture(path, "Aperio Image Library v12.0.15\r\nlabel 132x100")


def _mpp(text: bytes) -> Make:
    return _aperio_saying(b"|MPP = " + text)


_NO_UNIT = tag("ResolutionUnit", Field(number_of(1, 2)))


def _resolution(x: tuple[int, int], y: tuple[int, int]) -> Make:
    return then(generic, tag("XResolution", Field(pack("<II", *x))), tag("YResolution", Field(pack("<II", *y))))


def _sparse(base: Callable[[Path], Path], keep: Callable[[int, int], bool]) -> Make:
    """Without the tiles of level 0 (by row and column) that are not kept."""
    columns, rows = -(-WIDTH // JPEG.tile), -(-HEIGHT // JPEG.tile)
    gone = [row * columns + column for row in range(rows) for column in range(columns) if not keep(row, column)]
    return then(base, lambda path: drop_segments(path, gone))


MISSING = ((1, 4), (1, 5), (2, 4))
"""Rows and columns of the tiles that sparse slides do not have, all amid tissue."""


def _some(row: int, column: int) -> bool:
    return (row, column) not in MISSING


def _plain(pixels: Callable[[], np.ndarray], **options: Any) -> Make:
    return lambda path: plain(path, pixels(), **options)


def _even(colour: int | tuple[int, int, int]) -> Callable[[], np.ndarray]:
    return lambda: np.full((HEIGHT, WIDTH, 3), colour, np.uint8)


_SIZE = b"\xff\x51\0\x2f\0\0\0\0\0"  # a JPEG 2000 codestream's header up to the last byte of its width
_SAMPLES = b"\x07\x01\x01"  # what follows their number
_END = b"\xff\xd9"

FILES = [
    Case("good.tif", 7, "done", generic, "generic-tiff"),
    Case("good-big.tif", 7, "done", _bigtiff),
    Case("good.aperio.svs", 7, "done", aperio, "aperio"),
    Case("good.33005.svs", 7, "done", jp2k, "aperio-33005"),
    Case("good.33003.svs", 7, "done", then(jp2k, *(tag("Compression", Field(number_of(33003, 2)), n) for n in (0, 1))),
         "aperio-33003"),
    Case("partial-lzw.tif", 7, "done", _plain(tissue, compression="lzw"), "generic-tiff-lzw-partial-tile"),
    Case("strips.tif", 7, "done", _plain(tissue, tile=None, rowsperstrip=16), "untiled-tiff"),
    Case("empty.svs", 7, "empty_file", Path.touch, "empty-file"),
    Case("dangling.svs", 7, "missing", lambda path: path.symlink_to("nowhere.svs")),
    Case("circle.svs", 7, "missing", lambda path: path.symlink_to(path.name)),
    Case("folder.svs", 7, "folder", Path.mkdir),
    Case("pipe.svs", 7, "not_a_file", os.mkfifo),
    Case("garbage.svs", 7, "not_a_slide", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000))),
    Case("text.ndpi", 7, "not_a_slide", lambda path: path.write_text("a letter to a pathologist " * 40)),
    Case("magic-alone.tif", 7, "truncated", lambda path: path.write_bytes(b"II*\0\x08\0\0\0")),
    Case("magic-alone-big-endian.tif", 7, "truncated", lambda path: path.write_bytes(b"MM\0*")),
    Case("half.tif", 7, "truncated", then(generic, cut(0.5))),
    Case("half-big.tif", 7, "truncated", then(_bigtiff, cut(0.5))),
    Case("most.aperio.svs", 7, "truncated", then(aperio, cut(0.97)), "aperio-truncated-top-level"),
    Case("most.tif", 7, "truncated", then(generic, cut(0.97)), "generic-tiff-truncated-top-level"),
    Case("long-tile.tif", 7, "truncated", then(generic, lambda path: set_tile_count(path, 0, 1_000_000)),
         "generic-tiff-truncated-tile"),
    Case("circle-of-directories.tif", 7, "damaged", then(generic, point_back(0)), "generic-tiff-directory-loop"),
    Case("directory-before-itself.tif", 7, "damaged", then(generic, point_back(1))),
    Case("circle-of-directories-big.tif", 7, "damaged", then(_bigtiff, point_back(0))),
    Case("no-directory.tif", 7, "damaged", then(generic, lambda path: overwrite(path, 4, bytes(4))),
         "generic-tiff-no-directories"),
    Case("compression-200.tif", 7, "damaged", then(generic, tag("Compression", Field(number_of(200, 2)))),
         "generic-tiff-bad-compression"),
    Case("compression-200.aperio.svs", 7, "damaged", then(aperio, tag("Compression", Field(number_of(200, 2)))),
         "aperio-bad-compression"),
    Case("deep.svs", 7, "damaged", then(aperio_with_picture, deepen), "aperio-bad-imagedepth"),
    Case("description-elsewhere.svs", 7, "done", then(aperio, tag("ImageDescription", Field(at=0x7FFFFFF0))),
         "aperio-bad-imagedescription-pointer"),
    Case("description-unended.svs", 7, "done", then(aperio, tag("ImageDescription", Field(count=40))),
         "aperio-truncated-imagedescription"),
    Case("property-of-no-utf8.svs", 7, "done", _aperio_saying(b"|M\xffP = 0.25")),
    Case("tag-order.tif", 7, "done", then(generic, swap_entries), "generic-tiff-bad-tag-order"),
    Case("picture-undescribed.svs", 7, "done", aperio_with_picture, "aperio-thumbnail-no-imagedescription"),
    Case("picture-description-empty.svs", 7, "done", lambda path: aperio_with_picture(path, ""),
         "aperio-thumbnail-empty-imagedescription"),
    Case("picture-colours.svs", 7, "done", lambda path: aperio_with_picture(path, "Aperio\r\n", iccprofile=b"other"),
         "aperio-thumbnail-mismatched-icc-profile"),
    Case("label-of-kind-0.svs", 7, "done", then(_labelled, tag("NewSubfileType", Field(number_of(0)), 1)),
         "aperio-label-no-subfile-type"),
    Case("label-of-kind-7.svs", 7, "done", then(_labelled, tag("NewSubfileType", Field(number_of(7)), 1)),
         "aperio-label-bad-subfile-type"),
    Case("one-tile-bad.tif", 7, "done", then(generic, change_segments(b"\xff\xd8", b"\xfe\xd8", [13])),
         "generic-tiff-bad-jpeg"),
    Case("one-tile-bad-one-level.tif", 7, "done", then(_bigtiff, change_segments(b"\xff\xd8", b"\xfe\xd8", [13]))),
    Case("no-tile-good.tif", 7, "unreadable_tiles", then(generic, change_segments(b"\xff\xd8", b"\xfe\xd8"))),
    Case("no-tile-good-one-level.tif", 7, "unreadable_tiles",
         then(_bigtiff, change_segments(b"\xff\xd8", b"\xfe\xd8"))),
    Case("no-zlib-good.tif", 7, "unreadable_tiles", then(_plain(tissue), change_segments(b"x", b"y"))),
    Case("no-jp2k-good.svs", 7, "unreadable_tiles", then(jp2k, change_segments(b"\xff\x52", b"\xff\x01")),
         "aperio-jp2k-bad-image"),
    Case("jp2k-unended.svs", 7, "done", then(jp2k, change_segments(_END, b"\xff\0")), "aperio-jp2k-bad-eoc"),
    Case("jp2k-wide.svs", 7, "unreadable_tiles",
         then(jp2k, change_segments(_SIZE + b"\x40", _SIZE + b"\x48")), "aperio-jp2k-bad-width"),
    Case("jp2k-grey.svs", 7, "unreadable_tiles",
         then(jp2k, change_segments(b"\0\x03" + _SAMPLES, b"\0\x01" + _SAMPLES)), "aperio-jp2k-bad-numcomps"),
    Case("jp2k-nowhere.svs", 7, "done", then(jp2k, lambda path: set_tile_offset(path, 13, 0)),
         "aperio-jp2k-tile-missing"),
    Case("glass.tif", 8, "empty", _plain(_even(243))),
    Case("white.tif", 8, "empty", _plain(_even(255))),
    Case("black.tif", 8, "empty", _plain(_even(0))),
    Case("all-tissue.tif", 8, "done", _plain(lambda: tissue(HEIGHT, 2 * WIDTH)[:, WIDTH:].copy())),
    Case("all-of-one-pink.tif", 8, "done", _plain(_even((220, 120, 180)))),
    Case("mpp-missing.svs", 9, "mpp_missing", _aperio_saying(b"|QPP = 0.25", _NO_UNIT)),
    Case("mpp-valueless.svs", 9, "mpp_missing", _aperio_saying(b"|MPP|Q|||||", _NO_UNIT),
         "aperio-imagedescription-property-no-value"),
    Case("mpp-and-nothing.svs", 9, "done", _aperio_saying(b"||MPP=.25||"), "aperio-imagedescription-property-empty"),
    Case("mpp-zero.svs", 9, "mpp_invalid", _mpp(b"0.00")),
    Case("mpp-negative.svs", 9, "mpp_invalid", _mpp(b"-0.5")),
    Case("mpp-nan.svs", 9, "mpp_invalid", _mpp(b" nan")),
    Case("mpp-inf.svs", 9, "mpp_invalid", _mpp(b"+inf")),
    Case("mpp-comma.svs", 9, "done", _mpp(b"0,50"), "aperio-imagedescription-decimal-comma"),
    Case("mpp-tiny.svs", 9, "mpp_invalid", _mpp(b"1e-6")),
    Case("mpp-huge.svs", 9, "mpp_invalid", _mpp(b"20.0")),
    Case("mpp-as-resolution.svs", 9, "done", _aperio_saying(b"|QPP = 0.25")),
    Case("resolution-over-zero.tif", 9, "mpp_missing", _resolution((20_000, 0), (20_000, 0)),
         "generic-tiff-resolution-zero-denominator"),
    Case("resolution-zero.tif", 9, "mpp_invalid", _resolution((0, 1), (0, 1)),
         "generic-tiff-resolution-zero-numerator"),
    Case("oblong.tif", 10, "done", _resolution((40_000, 1), (20_000, 1))),
    Case("oblong-beyond.tif", 10, "too_coarse", _resolution((20_000, 1), (10_000, 1))),
    Case("bomb-of-pixels.tif", 12, "too_large", lambda path: bomb(path, 1_000_000, 4096)),
    Case("bomb-of-places.tif", 12, "too_large", lambda path: bomb(path, 400_000, 4096)),
    Case("bomb-of-one-tile.tif", 12, "too_large", lambda path: bomb(path, 32_768, 32_768)),
    Case("sparse.tif", 13, "done", _sparse(generic, _some), "generic-tiff-sparse"),
    Case("sparse.aperio.svs", 13, "done", _sparse(aperio, _some), "aperio-jpeg-tile-zero-length"),
    Case("sparse.33005.svs", 13, "done", _sparse(jp2k, _some), "aperio-jp2k-tile-zero-length"),
    Case("sparse-frame.tif", 13, "done", _sparse(generic, lambda row, column: 0 < row < 5 and 0 < column < 7),
         "generic-tiff-sparse-frame"),
    Case("sparse-all.tif", 13, "empty", then(generic, *(
        lambda path, page=page: drop_segments(path, list(range(page_count(path, page))), page) for page in (0, 1))),
        "generic-tiff-no-tiles"),
    Case("grey.tif", 14, "unsupported", _plain(lambda: tissue()[..., 1].copy(), photometric="minisblack")),
    Case("sixteen-bit.tif", 14, "unsupported", _plain(lambda: tissue().astype(np.uint16) * 257)),
    Case("twelve-bit.tif", 14, "unsupported",
         then(_plain(tissue), tag("BitsPerSample", Field(pack("<HHH", 12, 12, 12)))),
         "generic-tiff-bad-bitspersample"),
    Case("float.tif", 14, "unsupported", _plain(lambda: tissue().astype(np.float32))),
    Case("rgba.tif", 14, "done", _plain(lambda: opaque(255), extrasamples=["unassalpha"])),
    Case("rgba-half.tif", 14, "done", _plain(lambda: opaque(128), extrasamples=["unassalpha"])),
    Case("palette.tif", 14, "done", _plain(lambda: tissue()[..., 1].copy(), photometric="palette", colormap=PALETTE)),
    Case("planar.tif", 14, "done", _plain(lambda: np.moveaxis(tissue(), -1, 0).copy(), planarconfig="separate")),
]  # fmt: skip

ELSEWHERE = {
    "aperio-small-region": "the real slide is here: test_slide, test_steps",
    "nonexistent-file": "gone.svs, which the run is asked for and nobody makes",
    "aperio-filename-utf8": "a name, not a file: test_names",
}
"""Cases of OpenSlide's Aperio and generic-TIFF families that need no file of their own."""
