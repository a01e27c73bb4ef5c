"""Images in a tile store of their own frame.

Each image lies in a field of ``SIDE`` level-0 pixels (its own pixels): the first in the first field, the next below it,
a new column after ``ROWS`` of them. So an origin tells which image a tile is from (:func:`image_numbers`), and where it
lies in it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from wsi_lmc.errors import SlideError
from wsi_lmc.patches.config import SAME_MPP, PackConfig
from wsi_lmc.patches.cutting import CutFacts, cut_image
from wsi_lmc.patches.images import LONGEST_SIDE, decode_image, load_image
from wsi_lmc.provenance import fingerprint, to_json
from wsi_lmc.publish import publishing
from wsi_lmc.threads import Pending, Threads, in_turn, threads_of_process
from wsi_lmc.tilestore import TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import Attributes

SIDE, ROWS = LONGEST_SIDE, 1 << 17
_Cut = tuple[UInt8[np.ndarray, "n h w 3"], CutFacts]


@dataclass(frozen=True)
class Patch:
    """An image to be packed: ``mpp`` as the manifest states it, ``sha256`` of its bytes, where it is known."""

    path: Path
    mpp: float | None = None
    sha256: str = ""


def image_numbers(origins: Int32[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
    """Which of a store's images each tile is from, by its origin."""
    fields = origins.astype(np.int64) // SIDE
    return fields[:, 0] * ROWS + fields[:, 1]


def pack_identity(patches: Sequence[Patch], config: PackConfig) -> Attributes:
    """Fingerprints of what decides the tiles: the images' bytes in order, all settings, and stated pixel sizes."""
    stated = [patch.mpp for patch in patches]
    return {
        "slide_fingerprint": fingerprint([patch.sha256 for patch in patches]),
        "config_fingerprint": fingerprint({"pack": to_json(config), "manifest_mpp": stated}),
    }


def write_store(
    draft: Path, slide_id: str, patches: Sequence[Patch], config: PackConfig
) -> tuple[TileRows, Attributes]:
    """Write the tiles of images into the store ``draft``, in order; a few images are in memory at a time.

    Returns what the store says of its tiles and of itself.

    Raises:
        SlideError: an image cannot be read or cut, or their pixel sizes differ; also ``slide_changed`` where its bytes
            are not those of ``sha256``.
    """
    cuts: list[CutFacts] = []  # small: 100,000 take some megabytes
    with (
        Threads(threads_of_process()) as threads,
        TileStoreWriter(draft, None, config.tile_px, config.codec) as writer,
    ):
        waiting: deque[tuple[int, Pending[list[None]]]] = deque()
        row = 0
        for number, (tiles, facts) in enumerate(_cuts(patches, config, threads)):
            waiting.append((row + len(tiles), _begin_putting(writer, row, tiles, threads)))
            row += len(tiles)
            cuts.append(_placed(facts, number))
            while len(waiting) > threads.count:
                _finish_putting(writer, waiting)
        while waiting:
            _finish_putting(writer, waiting)
        origins = np.concatenate([cut.origins for cut in cuts])
        rows = TileRows(origins, np.ones(row, np.float32), np.concatenate([cut.valid for cut in cuts]))
        attributes = _describe(slide_id, patches, cuts, config) | pack_identity(patches, config)
        writer.close(rows, attributes)
    return rows, attributes


def write_patches(run_folder: Path, slide_id: str, images: Sequence[Path], px: int, mpp: float) -> TileStore:
    """Publish ``tiles/<slide_id>.zarr`` with the tiles of all ``images`` (of one slide, patient or site), in order.

    The store alone: ``wsi-lmc pack`` also writes labels, the manifest and the record of a run.

    Args:
        run_folder: where the store goes.
        slide_id: safe id; splits and intervals treat all of it as one slide.
        images: files; each is split into tiles of ``px`` pixels.
        px: side of a tile.
        mpp: microns per pixel of the images; tiles are not resampled.

    Raises:
        SlideError: an image cannot be read, or is smaller than a tile.
    """
    patches = [Patch(path, sha256=sha256(load_image(path)).hexdigest()) for path in images]
    final = run_folder / "tiles" / f"{slide_id}.zarr"
    with publishing(run_folder, final) as draft:
        write_store(draft, slide_id, patches, PackConfig(tile_px=px, mpp=mpp))
    return TileStore.open(final)


def _cuts(patches: Sequence[Patch], config: PackConfig, threads: Threads) -> Iterator[_Cut]:
    """Images read, decoded and cut in order, some of them ahead."""

    def begin(number: int) -> Pending[_Cut]:
        work = threads.begin(lambda _: _read_and_cut(patches[number], config), 1, 1)
        return work.then(lambda found: found[0])

    return in_turn(begin, len(patches), 2 * threads.count if threads.count > 1 else 0)


def _read_and_cut(patch: Patch, config: PackConfig) -> _Cut:
    found = config.mpp_of(patch.mpp)
    if found is None:
        raise SlideError("mpp_missing", f"no pixel size of {patch.path.name}", "microns per pixel", "Give --mpp.")
    data = load_image(patch.path)
    if patch.sha256 and sha256(data).hexdigest() != patch.sha256:
        said = f"{patch.path.name} has changed since this command began"
        raise SlideError("slide_changed", said, "images that stay as they are", "Run the command again.")
    return cut_image(patch.path, decode_image(patch.path, data), found[0], config)


def _begin_putting(
    writer: TileStoreWriter, start: int, tiles: UInt8[np.ndarray, "n h w 3"], threads: Threads
) -> Pending[list[None]]:
    def put(part: range) -> None:
        for number in part:
            writer.put(start + number, tiles[number])

    return threads.begin(put, len(tiles))


def _finish_putting(writer: TileStoreWriter, waiting: deque[tuple[int, Pending[list[None]]]]) -> None:
    stop, pending = waiting.popleft()
    pending.result()
    writer.flush(stop)


def _placed(facts: CutFacts, number: int) -> CutFacts:
    """An image's tiles in the store's frame."""
    column, row = divmod(number, ROWS)
    return replace(facts, origins=facts.origins + np.array([column * SIDE, row * SIDE], np.int32))


def _describe(slide_id: str, patches: Sequence[Patch], cuts: Sequence[CutFacts], config: PackConfig) -> Attributes:
    """What a store says of its images, in the words that stores of slides have.

    Raises:
        SlideError: ``mpp_conflict``, where tiles of one store would have different pixel sizes.
    """
    sizes = np.array([cut.effective_mpp for cut in cuts])
    low, high = float(sizes.min()), float(sizes.max())
    if high > low * (1 + SAME_MPP):
        raise SlideError(
            "mpp_conflict",
            f"tiles of {low:.4g} and {high:.4g} um/px in one group",
            "one pixel size, within 2 %",
            "Bring them to one with --tile-mpp, or give them different groups.",
        )
    effective = [float(size) for size in sizes.mean(0)]
    mpp = float(np.mean([cut.mpp for cut in cuts]))
    sources = sorted({found[1] for patch in patches if (found := config.mpp_of(patch.mpp)) is not None})
    size = [SIDE * (1 + (len(patches) - 1) // ROWS), SIDE * min(len(patches), ROWS)]
    px, footprint = config.tile_px, [config.tile_px * side / mpp for side in effective]
    return {
        "slide": {
            "id": slide_id, "width": size[0], "height": size[1], "mpp": [mpp, mpp], "mpp_source": ", ".join(sources),
            "vendor": "images", "reader": "images", "compared": None, "quickhash": None, "bounds": [0, 0, *size],
        },
        "tile": {
            "px": px, "mpp": config.tile_mpp or float(np.mean(effective)), "level_mpp": [mpp, mpp],
            "effective_mpp": effective, "footprint": footprint, "stride": px, "level": 0,
            "read_px": [round(side) for side in footprint],
            "resampled": ", ".join(sorted({cut.resampled for cut in cuts})),
        },
        "packed": {"images": len(patches), "side": SIDE, "rows": ROWS},
    }  # fmt: skip
