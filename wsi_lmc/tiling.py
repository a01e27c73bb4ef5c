"""Cutting tiles: the one place where a slide's pixels meet the store."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.grid import TileGrid
from wsi_lmc.slide import Boxes, Sampling, Slide, encode_jpeg
from wsi_lmc.tilestore import TILES_PER_SHARD, Codec, StoredCodec, TileRows, Validity
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import Attributes

MAX_UNREADABLE_SHARE = 0.05
_TILES_PER_BLOCK = 128  # 12 MB of 256-px tiles: what is read is still in the cache when it is compressed


def read_blocks(
    slide: Slide, grid: TileGrid, size: int
) -> Iterator[tuple[UInt8[np.ndarray, "tile h w 3"], UInt8[np.ndarray, " tile"]]]:
    """Read a grid's tiles in order, ``size`` at a time: pixels, and the :class:`Validity` of each.

    The pixels' memory is used again for the next block but one: fresh pages would cost a third of the time that
    decoding takes.

    Raises:
        SlideError: ``unreadable_tiles`` as soon as more than 5 % of the grid cannot be decoded.
    """
    side = grid.sampling.tile
    plan = slide.plan(grid.origins, grid.sampling)
    shape = (min(size, len(grid)), side.height, side.width, 3)
    buffers = [np.empty(shape, np.uint8) for _ in range(min(2, -(-len(grid) // size)))]
    unreadable = 0
    for start in range(0, len(grid), size):
        stop = min(start + size, len(grid))
        pixels = buffers[start // size % 2][: stop - start]
        boxes = slide.read_tiles(plan, start, pixels)
        unreadable += int(boxes.unreadable.sum())
        _check_share(unreadable, len(grid))
        yield pixels, _validity(boxes, grid.padded[start:stop])


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
    native = slide.native_segments(plan) if codec == "auto" else None
    stored: StoredCodec = "kept" if native is not None else "lossless" if codec == "auto" else codec
    valid: list[UInt8[np.ndarray, " tile"]] = [np.zeros(0, np.uint8)]
    with TileStoreWriter(path, len(grid), grid.sampling.tile.width, stored, slide.threads) as writer:
        if native is not None:
            for chunks, block_valid in _native_blocks(slide, grid.sampling, native):
                writer.write_encoded(chunks)
                valid.append(block_valid)
        else:
            for pixels, block_valid in read_blocks(slide, grid, _TILES_PER_BLOCK):
                writer.write(pixels)
                valid.append(block_valid)
        rows = TileRows(grid.origins, grid.tissue_fraction, np.concatenate(valid))
        writer.close(rows, {"slide": asdict(slide.info), "tile": describe_tiles(slide, grid), **attributes})


def _native_blocks(
    slide: Slide, sampling: Sampling, segments: Int64[np.ndarray, " n"]
) -> Iterator[tuple[list[bytes], UInt8[np.ndarray, " tile"]]]:
    """The slide's own JPEG bytes, a shard at a time; a segment that is visibly damaged becomes a white tile."""
    white = encode_jpeg(np.full((sampling.tile.height, sampling.tile.width, 3), 255, np.uint8))
    unreadable = 0

    for start in range(0, len(segments), TILES_PER_SHARD):
        block = segments[start : start + TILES_PER_SHARD]
        found = slide.native_jpegs(sampling.level, block)  # copying bytes: threads would only hinder each other
        valid = np.asarray([Validity.UNREADABLE if jpeg is None else Validity.OK for jpeg in found], np.uint8)
        unreadable += int((valid == Validity.UNREADABLE).sum())
        _check_share(unreadable, len(segments))
        yield [white if jpeg is None else jpeg for jpeg in found], valid


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


def _validity(boxes: Boxes, padded: Bool[np.ndarray, " tile"]) -> UInt8[np.ndarray, " tile"]:
    valid = np.where(boxes.transparent, Validity.COMPOSITED, Validity.OK)
    valid[padded] = Validity.PADDED
    valid[boxes.unreadable] = Validity.UNREADABLE
    return valid.astype(np.uint8)


def _check_share(unreadable: int, total: int) -> None:
    if unreadable > MAX_UNREADABLE_SHARE * total:
        raise SlideError(
            "unreadable_tiles",
            f"{unreadable} of {total} tiles cannot be decoded",
            f"{MAX_UNREADABLE_SHARE:.0%} at most",
            "Copy the slide again from its source; if it stays so, leave it out.",
        )
