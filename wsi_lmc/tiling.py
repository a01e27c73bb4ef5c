"""Cutting tiles: the one place where a slide's pixels meet the store."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.grid import TileGrid
from wsi_lmc.slide import Boxes, NativeTiles, ReadPlan, Slide, Take
from wsi_lmc.threads import Pending, Threads, in_turn
from wsi_lmc.tilestore import TILES_PER_SHARD, Codec, StoredCodec, TileRows, Validity
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import Attributes

MAX_UNREADABLE_SHARE = 0.05
TILES_PER_BLOCK = 256  # fewer, and threads hand over to each other more often than is good


def read_blocks(
    slide: Slide, grid: TileGrid, size: int, take: Take | None = None, of: int | None = None
) -> Iterator[tuple[UInt8[np.ndarray, "tile h w 3"], UInt8[np.ndarray, " tile"]]]:
    """Read a grid's tiles in order, ``size`` at a time: pixels, and the :class:`Validity` of each.

    Where the slide has several threads they read one block ahead of what is asked for. The pixels' memory is used again
    for the next block but one: fresh pages would cost a third of the time that decoding takes.

    Args:
        slide: the open slide.
        grid: where its tiles lie.
        size: tiles in a block.
        take: called with each tile's row and pixels by the thread that has just read it, in whose cache it still is.
        of: tiles of the whole slide, where the grid is but a part.

    Raises:
        SlideError: ``unreadable_tiles`` as soon as more than 5 % of the slide's tiles cannot be decoded.
    """
    side = grid.sampling.tile
    plan = slide.plan(grid.origins, grid.sampling)
    ahead = int(slide.threads.count > 1)
    starts = range(0, len(grid), size)
    shape = (min(size, len(grid)), side.height, side.width, 3)
    buffers = [np.empty(shape, np.uint8) for _ in range(min(2 + ahead, len(starts)))]
    unreadable = 0

    def begin(number: int) -> Pending[tuple[UInt8[np.ndarray, "_ h w 3"], Boxes]]:
        pixels = buffers[number % len(buffers)][: len(grid) - starts[number]]
        return slide.begin_tiles(plan, starts[number], pixels, take).then(lambda boxes: (pixels, boxes))

    for start, (pixels, boxes) in zip(starts, in_turn(begin, len(starts), ahead), strict=True):
        unreadable += int(boxes.unreadable.sum())
        check_readable(unreadable, len(grid) if of is None else of)
        yield pixels, _validity(boxes, grid.padded[start : start + size])


def cut_tiles(slide: Slide, grid: TileGrid, path: Path, codec: Codec, attributes: Attributes) -> None:
    """Write the tile store of one slide at ``path``, which must not exist.

    Args:
        slide: the open slide.
        grid: where its tiles lie.
        path: of the new store, on its way to being published.
        codec: how pixels are compressed; ``auto`` keeps the slide's own JPEG bytes where the tiles are its segments.
        attributes: fingerprints and the tissue settings, stored beside the slide's and the tiles' description.
    """
    plan = slide.plan(grid.origins, grid.sampling)
    stored, native = how_stored(slide, plan, codec)
    valid: list[UInt8[np.ndarray, " tile"]] = [np.zeros(0, np.uint8)]
    with TileStoreWriter(path, len(grid), grid.sampling.tile.width, stored) as writer:
        if native is not None:
            blocks = _keep(native, writer, slide.threads)
        else:
            blocks = (found for _, found in read_blocks(slide, grid, TILES_PER_BLOCK, writer.put))
        row = 0
        for block_valid in blocks:
            row += len(block_valid)
            valid.append(block_valid)
            writer.flush(row)
        rows = TileRows(grid.origins, grid.tissue_fraction, np.concatenate(valid))
        writer.close(rows, {"slide": asdict(slide.info), "tile": describe_tiles(slide, grid), **attributes})


def how_stored(slide: Slide, plan: ReadPlan, codec: Codec) -> tuple[StoredCodec, NativeTiles | None]:
    """What becomes of a plan's pixels in the store, and the slide's own JPEG bytes where they are kept."""
    native = slide.native_tiles(plan) if codec == "auto" else None
    return "kept" if native is not None else "lossless" if codec == "auto" else codec, native


def _keep(native: NativeTiles, writer: TileStoreWriter, threads: Threads) -> Iterator[UInt8[np.ndarray, " _"]]:
    """Put the slide's own JPEG files into the store; yields the validity of some shards of them at a time."""
    unreadable = 0
    together = TILES_PER_SHARD * threads.count
    for start in range(0, len(native), together):
        shards = range(start, min(start + together, len(native)), TILES_PER_SHARD)

        def keep(part: range, shards: range = shards) -> list[UInt8[np.ndarray, " _"]]:
            return [_keep_shard(native, writer, shards[number]) for number in part]

        valid = np.concatenate([shard for part in threads.each(keep, len(shards)) for shard in part])
        unreadable += int((valid == Validity.UNREADABLE).sum())
        check_readable(unreadable, len(native))
        yield valid


def _keep_shard(native: NativeTiles, writer: TileStoreWriter, start: int) -> UInt8[np.ndarray, " _"]:
    """One shard's tiles, from row ``start`` on; those that are visibly damaged become white."""
    part = slice(start, min(start + TILES_PER_SHARD, len(native)))
    lengths = native.lengths(part)
    valid = np.full(len(lengths), Validity.OK, np.uint8)
    if native.lay(part, writer.lay(start, lengths)):
        return valid
    for slot, jpeg in enumerate(native.files(part)):
        valid[slot] = Validity.UNREADABLE if jpeg is None else Validity.OK
        writer.put_encoded(start + slot, writer.white if jpeg is None else jpeg)
    return valid


def describe_tiles(slide: Slide, grid: TileGrid) -> Attributes:
    """What the stores record of their tiles; mpp in microns per target pixel, footprint in level-0 pixels."""
    sampling = grid.sampling
    return {
        "px": sampling.tile.width,
        "mpp": sampling.requested_mpp,
        "level_mpp": [sampling.level_mpp.x, sampling.level_mpp.y],
        "effective_mpp": [sampling.effective_mpp.x, sampling.effective_mpp.y],
        "footprint": list(sampling.footprint),
        "stride": grid.stride_px,
        "level": sampling.level,
        "read_px": [sampling.read.width, sampling.read.height],
        "resampled": slide.plan(grid.origins, sampling).reduction,
    }


def check_readable(unreadable: int, total: int) -> None:
    """Raise SlideError ``unreadable_tiles`` where more than 5 % of a slide's tiles cannot be decoded."""
    if unreadable > MAX_UNREADABLE_SHARE * total:
        raise SlideError(
            "unreadable_tiles",
            f"{unreadable} of {total} tiles cannot be decoded",
            f"{MAX_UNREADABLE_SHARE:.0%} at most",
            "Copy the slide again from its source; if it stays so, leave it out.",
        )


def _validity(boxes: Boxes, padded: Bool[np.ndarray, " tile"]) -> UInt8[np.ndarray, " tile"]:
    valid = np.where(boxes.transparent, Validity.COMPOSITED, Validity.OK)
    valid[padded] = Validity.PADDED
    valid[boxes.unreadable] = Validity.UNREADABLE
    return valid.astype(np.uint8)
