"""What peers' own programs do with one slide: what ``run_peer.py`` times for ``bench_tiling.py --peer NAME=PYTHON``.

Each function imports the peer, in whose own environment it runs, and returns what is timed. ``read`` tasks read the
pixels of given tiles at native scale, as arrays; ``tile`` tasks find tissue and write what the peer writes. Settings
that are not named are the peer's defaults. The peers are called, nothing of them is copied here, and tools that are
licensed under the GPL or for non-commercial use only (CLAM, TRIDENT, AtlasPatch) are left out.

Environments come from PyPI. Without CUDA, cuCIM (hs2p and slide2vec read through it) needs no more than
``pip install --no-deps cucim-cu12`` and ``pip install click lazy-loader numpy scikit-image scipy``.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np

TILE = 256


@dataclass(frozen=True)
class Job:
    """One slide, read at its native scale; origins are those of the tiles, in level-0 pixels."""

    slide: Path
    out: Path
    mpp: float
    workers: int
    origins: list[tuple[int, int]] = field(default_factory=list)


Take = Callable[[int, Any], object]  # is given every tile: its row among the origins, its pixels
Read = Callable[[Job, Take], None]  # a ``read`` task, its imports done
Tile = Callable[[Job], int]  # a ``tile`` task, its imports done; returns the number of tiles
PartRead = Callable[[Job, Sequence[int], Take], None]


def in_threads(read: PartRead) -> Read:
    """As many threads as workers, rows dealt out in turn; what they share is up to ``read``."""

    def run(job: Job, take: Take) -> None:
        parts = [range(start, len(job.origins), job.workers) for start in range(job.workers)]
        with ThreadPoolExecutor(job.workers) as pool:
            list(pool.map(lambda part: read(job, part, take), parts))

    return run


def fastslide_read() -> Read:
    """``FastSlide.read_region``, a call a tile, a handle a thread, no cache and no ICC (its defaults)."""
    fastslide = importlib.import_module("fastslide")

    def read(job: Job, part: Sequence[int], take: Take) -> None:
        with fastslide.FastSlide.from_file_path(job.slide) as slide:
            for row in part:
                take(row, slide.read_region(job.origins[row], 0, (TILE, TILE)).numpy())

    return in_threads(read)


def pyvips_read() -> Read:
    """``Region.fetch`` on its TIFF loader, a call a tile, an image and region a thread, one libvips worker each."""
    os.environ["VIPS_CONCURRENCY"] = "1"
    pyvips = importlib.import_module("pyvips")

    def read(job: Job, part: Sequence[int], take: Take) -> None:
        region = pyvips.Region.new(pyvips.Image.tiffload(str(job.slide)))
        for row in part:
            pixels = np.frombuffer(region.fetch(*job.origins[row], TILE, TILE), np.uint8)
            take(row, pixels.reshape(TILE, TILE, -1))

    return in_threads(read)


def cucim_read() -> Read:
    """``CuImage.read_region`` without CUDA, a call a tile, a handle a thread, no cache (its default)."""
    cucim = importlib.import_module("cucim")
    opening = Lock()

    def read(job: Job, part: Sequence[int], take: Take) -> None:
        with opening:  # two threads that open their first at once end in a segmentation fault, one time in twelve
            slide = cucim.CuImage(str(job.slide))
        for row in part:
            take(row, np.asarray(slide.read_region(job.origins[row], (TILE, TILE), 0)))

    return in_threads(read)


def cucim_read_batches() -> Read:
    """``CuImage.read_region`` without CUDA, one call for all tiles: batches of 64, as many threads as workers."""
    cucim = importlib.import_module("cucim")

    def read(job: Job, take: Take) -> None:
        slide = cucim.CuImage(str(job.slide))
        batches = slide.read_region(job.origins, (TILE, TILE), 0, num_workers=job.workers, batch_size=64)
        give((np.asarray(batch).reshape(-1, TILE, TILE, 3) for batch in batches), take)

    return read


def hs2p_tile(backend: str) -> Callable[[], Tile]:
    """Its program: hsv segmentation, default filters, JPEG of its default quality by Pillow into one tar."""

    def load() -> Tile:
        hs2p = importlib.import_module("hs2p")

        def tile(job: Job) -> int:
            (found,) = hs2p.tile_slides(
                [hs2p.SlideSpec(sample_id="slide", image_path=job.slide, spacing_at_level_0=job.mpp)],
                tiling=hs2p.TilingConfig(
                    requested_spacing_um=job.mpp, requested_tile_size_px=TILE, tolerance=0.05, overlap=0.0,
                    backend=backend, mask_backend=backend,
                ),
                segmentation=hs2p.SegmentationConfig(method="hsv"),
                filtering=hs2p.FilterConfig(),
                output_dir=job.out,
                num_workers=job.workers,
                save_tiles=True,
                jpeg_backend="pil",
            )  # fmt: skip
            return found.num_tiles

        return tile

    return load


def hs2p_result(job: Job) -> SimpleNamespace:
    """The attributes of hs2p's result of tiling that reading asks for, for tiles that are given."""
    x, y = np.array(job.origins, np.int64).T
    return SimpleNamespace(
        image_path=job.slide, backend="cucim", base_spacing_um=job.mpp, x=x, y=y, num_tiles=len(x), overlap=0.0,
        read_level=0, level_downsamples=[1.0], read_tile_size_px=TILE, requested_tile_size_px=TILE,
        tile_size_lv0=TILE, step_px_lv0=TILE,
    )  # fmt: skip


def hs2p_read() -> Read:
    """Its stream of tiles: supertiles of 8 x 8, 4 x 4 and 2 x 2 through cuCIM, as many threads as workers."""
    stream = importlib.import_module("hs2p.wsi.streaming.stream")

    def read(job: Job, take: Take) -> None:
        result = hs2p_result(job)
        for record in stream.iter_tile_records_from_result(result=result, num_workers=job.workers):
            take(record.tile_index, record.tile_arr)

    return read


def slide2vec_read() -> Read:
    """What it embeds from: its loader over supertiles, one process, batches of 32, as many cuCIM threads as workers."""
    torch = importlib.import_module("torch")
    reader = importlib.import_module("slide2vec.data.tile_reader")
    dataset = importlib.import_module("slide2vec.data.dataset")

    def read(job: Job, take: Take) -> None:
        collate = reader.OnTheFlyBatchTileCollator(
            image_path=job.slide, tiling_result=hs2p_result(job), backend="cucim", num_cucim_workers=job.workers
        )
        tiles = dataset.TileIndexDataset(collate.ordered_indices)
        for rows, batch, _ in torch.utils.data.DataLoader(tiles, batch_size=32, num_workers=1, collate_fn=collate):
            for row, pixels in zip(rows.tolist(), batch, strict=True):
                take(row, pixels.permute(1, 2, 0))

    return read


def tiatoolbox_tile() -> Tile:
    """Its ``SlidingWindowPatchExtractor``, serial as it is: morphological mask at 8 um/px, half tissue; a JPEG each."""
    extraction = importlib.import_module("tiatoolbox.tools.patchextraction")
    wsireader = importlib.import_module("tiatoolbox.wsicore.wsireader")
    misc = importlib.import_module("tiatoolbox.utils.misc")

    def tile(job: Job) -> int:
        slide = wsireader.WSIReader.open(job.slide, mpp=(job.mpp, job.mpp))
        patches = extraction.SlidingWindowPatchExtractor(
            slide, TILE, slide.tissue_mask("morphological", 8.0, "mpp"), job.mpp, "mpp", min_mask_ratio=0.5,
            within_bound=True,
        )  # fmt: skip
        for row, pixels in enumerate(patches):
            misc.imwrite(job.out / f"{row}.jpg", pixels)
        return len(patches)

    return tile


def tiatoolbox_read() -> Read:
    """What its engines run on: its dataset at mpp, batches of 8, a process a worker, in-process for one.

    Which reader a slide gets is its choice: for a .tif, its own on tifffile and zarr.
    """
    torch = importlib.import_module("torch")
    models = importlib.import_module("tiatoolbox.models.dataset.dataset_abc")

    def read(job: Job, take: Take) -> None:
        dataset = models.WSIPatchDataset(
            job.slide, patch_input_shape=(TILE, TILE), stride_shape=(TILE, TILE), resolution=job.mpp, units="mpp",
            wsireader_kwargs={"mpp": (job.mpp, job.mpp)}, auto_get_mask=False,
        )  # fmt: skip
        dataset.inputs = np.array([(x, y, x + TILE, y + TILE) for x, y in job.origins])
        loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=processes(job))
        give((batch["image"] for batch in loader), take)

    return read


def lazyslide_tile() -> Tile:
    """Its preprocessing: tissue and tiles by its defaults, a zarr of outlines and coordinates. It keeps no pixels."""
    lazyslide = importlib.import_module("lazyslide")
    wsidata = importlib.import_module("wsidata")

    def tile(job: Job) -> int:
        slide = wsidata.open_wsi(job.slide, store=str(job.out / "slide.zarr"))
        lazyslide.pp.find_tissues(slide)
        lazyslide.pp.tile_tissues(slide, TILE, mpp=job.mpp, slide_mpp=job.mpp)
        slide.write()
        return len(slide["tiles"])

    return tile


def lazyslide_read() -> Read:
    """What it embeds from: wsidata's dataset, OpenSlide, batches of 32, a process a worker, in-process for one."""
    torch = importlib.import_module("torch")
    wsidata = importlib.import_module("wsidata")
    elements = importlib.import_module("wsidata.io")

    def read(job: Job, take: Take) -> None:
        slide = wsidata.open_wsi(job.slide, store=None, reader="openslide")
        spec = wsidata.TileSpec.from_wsidata(slide, TILE, mpp=job.mpp, slide_mpp=job.mpp)
        elements.add_tiles(slide, "tiles", np.array(job.origins), spec, np.zeros(len(job.origins), int))
        loader = torch.utils.data.DataLoader(slide.ds.tile_images(), batch_size=32, num_workers=processes(job))
        give((batch["image"] for batch in loader), take)

    return read


def give(batches: Iterable[Iterable[Any]], take: Take) -> None:
    """Hand over tiles that come in batches and in order."""
    for row, pixels in enumerate(chain.from_iterable(batches)):
        take(row, pixels)


def processes(job: Job) -> int:
    """Of a torch loader: none besides our own for one worker."""
    return job.workers if job.workers > 1 else 0


@dataclass(frozen=True)
class Peer:
    """What can be run of a peer, and whose versions its rows depend on."""

    packages: tuple[str, ...]
    read: dict[str, Callable[[], Read]]
    tile: dict[str, Callable[[], Tile]] = field(default_factory=dict)


PEERS = {
    "cucim": Peer(("cucim-cu12",), {"read": cucim_read, "read in batches": cucim_read_batches}),
    "fastslide": Peer(("fastslide",), {"read": fastslide_read}),
    "hs2p": Peer(
        ("hs2p", "cucim-cu12", "openslide-bin", "pillow"),
        {"read": hs2p_read},
        {"tile": hs2p_tile("openslide"), "tile through cuCIM": hs2p_tile("cucim")},
    ),
    "lazyslide": Peer(
        ("lazyslide", "wsidata", "openslide-bin", "torch"),
        {"read": lazyslide_read},
        {"tile, no pixels kept": lazyslide_tile},
    ),
    "pyvips": Peer(("pyvips", "pyvips-binary"), {"read": pyvips_read}),
    "slide2vec": Peer(("slide2vec", "hs2p", "cucim-cu12", "torch"), {"read": slide2vec_read}),
    "tiatoolbox": Peer(("tiatoolbox", "openslide-bin", "torch"), {"read": tiatoolbox_read}, {"tile": tiatoolbox_tile}),
}
