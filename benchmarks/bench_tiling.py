"""How fast are tiles, against decoding their JPEG bytes and against reading them one by one through OpenSlide?

Every row is timed in every round, the rounds are interleaved, and what is printed are ratios of medians within this
run: the machine may be as noisy as it likes. With one core, the process is tied to it, disk thread and all.

    python benchmarks/big_slides.py KANG.tif big.tif --side 40000 --tile 256
    python benchmarks/bench_tiling.py big.tif --cores 1
    python benchmarks/bench_tiling.py big.tif --cores 2

Peers' programs are rows, too, each by the Python of an environment with that peer in it (see peers.py). Where what a
peer reads is not what OpenSlide reads, its row says by how many grey levels.

    python benchmarks/bench_tiling.py big.tif --only "slide|cucim|hs2p" --peer cucim=A/python --peer hs2p=B/python
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import zarr
from peers import PEERS

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.embedding import store_blocks
from wsi_lmc.grid import GridConfig, TileGrid
from wsi_lmc.slide import NativeTiles, ReadOptions, Slide, open_slide
from wsi_lmc.steps.tile import TileConfig, TileTask, plan_tiles, tile_slide
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import TileStore
from wsi_lmc.tiling import TILES_PER_BLOCK, cut_tiles, read_blocks

UM = 0.25
CODECS = ("lossless", "auto")
SAMPLE = 1000  # tiles that the slow rows read; the fast ones read them all
PEER_TILES = 2000  # tiles that peers read


@dataclass(frozen=True)
class Bench:
    """One slide, its grids at native mpp and at twice that, and the compressed bytes of its tiles."""

    path: Path
    grid: TileGrid
    half: TileGrid
    jpegs: list[bytes]
    segment: int
    threads: Threads
    out: Path


def raw_decode(bench: Bench) -> int:
    """libjpeg-turbo alone: every JPEG tile that the grid touches, from memory, once; counted in tiles of the grid."""

    def work(part: range) -> None:
        buffer = np.empty((bench.segment, bench.segment, 3), np.uint8)
        for row in part:
            simplejpeg.decode_jpeg(bench.jpegs[row], "RGB", buffer=buffer)

    bench.threads.each(work, len(bench.jpegs))
    return len(bench.grid)


def openslide_each(bench: Bench) -> int:
    """What peers do to read: one ``read_region`` a tile, a handle a thread."""
    origins = bench.grid.origins[: SAMPLE * bench.threads.count].tolist()

    def work(part: list[list[int]]) -> None:
        with openslide.OpenSlide(bench.path) as slide:
            for x, y in part:
                np.asarray(slide.read_region((x, y), 0, (256, 256)).convert("RGB"))

    with ThreadPoolExecutor(bench.threads.count) as pool:
        list(pool.map(work, [origins[n :: bench.threads.count] for n in range(bench.threads.count)]))
    return len(origins)


def openslide_to_zarr(bench: Bench) -> int:
    """What peers do to keep tiles: the same, and an item assignment a tile with zarr's defaults."""
    origins = bench.grid.origins[:SAMPLE].tolist()
    shape = (len(origins), 256, 256, 3)
    array = zarr.create_array(bench.out / "peer.zarr", shape=shape, dtype=np.uint8, chunks=(1, 256, 256, 3))
    with openslide.OpenSlide(bench.path) as slide:
        for row, (x, y) in enumerate(origins):
            array[row] = np.asarray(slide.read_region((x, y), 0, (256, 256)).convert("RGB"))
    return len(origins)


@dataclass(frozen=True)
class PeerRow:
    """A task of a peer, run by its own Python in its own process; its imports are not counted."""

    name: str
    task: str
    python: Path
    notes: list[str] = field(default_factory=list)  # of its last run

    def __call__(self, bench: Bench) -> float:
        """Tiles a second; notes versions, and by how much pixels differ from OpenSlide's."""
        out = bench.out / "peer"
        out.mkdir()
        origins = bench.grid.origins[:PEER_TILES]
        np.save(out / "origins.npy", origins)
        script, slide = Path(__file__).absolute().with_name("run_peer.py"), bench.path.absolute()
        command = [self.python.absolute(), script, self.name, self.task, slide, out, str(UM), str(bench.threads.count)]
        os.sync()
        ended = subprocess.run(command, capture_output=True, text=True, cwd=out)  # cuCIM leaves a log where it runs
        if ended.returncode:
            raise SystemExit(f"{self.name}, {self.task} ended with {ended.returncode}:\n{ended.stderr}")
        found = json.loads(ended.stdout.splitlines()[-1])
        self.notes[:] = [found["versions"]]
        if (out / "pixels.npz").exists():
            with np.load(out / "pixels.npz", allow_pickle=False) as kept:
                difference = _difference(bench.path, origins[kept["rows"]], kept["pixels"])
            self.notes.append(f"pixels up to {difference} grey levels off" if difference else "pixels equal")
        shutil.rmtree(out)
        return found["tiles"] / found["seconds"]


def _difference(slide: Path, origins: np.ndarray, pixels: np.ndarray) -> int:
    with openslide.OpenSlide(slide) as opened:
        right = [np.asarray(opened.read_region((x, y), 0, (256, 256)).convert("RGB")) for x, y in origins.tolist()]
    return int(np.abs(np.stack(right).astype(int) - pixels[..., :3]).max())


def tile(codec: str) -> Callable[[Bench], int]:
    """The whole step: open, compare, find tissue, draw the overview, cut, checksum, publish."""

    def run(bench: Bench) -> int:
        config = TileConfig(grid=GridConfig(tile_mpp=UM), codec="lossless" if codec == "lossless" else "auto")
        return tile_slide(TileTask(SlideEntry(bench.path, "slide"), bench.out / codec, config, overwrite=True)).tiles

    return run


def cut_kept(bench: Bench) -> int:
    """The store alone, from the slide's own bytes: what of `tile, auto` grows with the number of tiles."""
    with open_slide(bench.path, options=ReadOptions("direct", threads=bench.threads.count)) as slide:
        cut_tiles(slide, bench.grid, bench.out / "kept.zarr", "auto", {})
    return len(bench.grid)


def read_slide(bench: Bench) -> int:
    """The reading side of ``embed`` straight from a slide."""
    with open_slide(bench.path, options=ReadOptions("direct", threads=bench.threads.count)) as slide:
        return sum(len(pixels) for pixels, _ in read_blocks(slide, bench.grid, TILES_PER_BLOCK))


def read_half(resample: str) -> Callable[[Bench], int]:
    """The same tissue at twice the mpp, without a level that has it; counted in level-0 tiles."""

    def run(bench: Bench) -> int:
        options = ReadOptions("direct", "dct" if resample == "dct" else "area", bench.threads.count)
        with open_slide(bench.path, options=options) as slide:
            return 4 * sum(len(pixels) for pixels, _ in read_blocks(slide, bench.half, TILES_PER_BLOCK))

    return run


def read_store(codec: str) -> Callable[[Bench], int]:
    """The reading side of ``embed`` from the store that `tile` wrote."""

    def run(bench: Bench) -> int:
        store = TileStore.open(bench.out / codec / "tiles" / "slide.zarr")
        return sum(len(pixels) for pixels, _ in store_blocks(store, range(len(store)), bench.threads))

    return run


ROWS: dict[str, Callable[[Bench], int]] = {
    "raw decoding": raw_decode,
    "OpenSlide, a read a tile": openslide_each,
    "OpenSlide + zarr, as peers do": openslide_to_zarr,
    "tile, lossless": tile("lossless"),
    "tile, auto": tile("auto"),
    "its store alone": cut_kept,
    "embed's reading, from the slide": read_slide,
    "embed's reading, lossless store": read_store("lossless"),
    "embed's reading, auto store": read_store("auto"),
    "at half the scale, dct": read_half("dct"),
    "at half the scale, area": read_half("area"),
}
BASE = ("raw decoding", "OpenSlide + zarr, as peers do")  # what all are compared with


def timed(name: str, run: Callable[[Bench], int]) -> Callable[[Bench], float]:
    """Tiles a second of a row of our own, without what it left last time."""

    def rate(bench: Bench) -> float:
        stale = [*(codec for codec in CODECS if name == f"tile, {codec}"), "peer.zarr", "kept.zarr"]
        for left in stale:
            shutil.rmtree(bench.out / left, ignore_errors=True)
        os.sync()  # so that no row pays for what the one before left to be written
        began = time.perf_counter()
        count = run(bench)
        return count / (time.perf_counter() - began)

    return rate


def measure(path: Path, out: Path, cores: int, rounds: int, rows: dict[str, Callable[[Bench], float]]) -> None:
    """Print every row's tiles a second and its ratio to raw decoding."""
    os.environ["OMP_NUM_THREADS"] = str(cores)
    if cores == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reading = open_slide(path, options=ReadOptions("direct", threads=cores))
    made = tempfile.TemporaryDirectory(prefix="bench-", dir=out)
    with made as temporary, Threads(cores) as threads, reading as slide:
        folder = Path(temporary)
        entry = SlideEntry(path, "slide")
        grid, half = (
            plan_tiles(TileTask(entry, folder, TileConfig(grid=GridConfig(tile_mpp=mpp))), slide)[0]
            for mpp in (UM, 2 * UM)
        )
        jpegs, segment = _tissue_segments(slide, grid)
        bench = Bench(path, grid, half, jpegs, segment, threads, folder)
        for row in rows.values():
            if not isinstance(row, PeerRow):  # they warm themselves
                row(bench)
        rates: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(rounds):
            for name, row in rows.items():
                rates[name].append(row(bench))
        sizes = {codec: _size(found) for codec in CODECS if (found := folder / codec / "tiles" / "slide.zarr").exists()}
    _print(path, cores, rates, len(grid))
    for codec, (files, size) in sizes.items():
        print(f"store, {codec}: {files} files, {size / len(grid) / 1000:.1f} kB a tile")
    for name, row in rows.items():
        if isinstance(row, PeerRow):
            print(f"{name}: {', '.join(row.notes)}")


def _tissue_segments(slide: Slide, grid: TileGrid) -> tuple[list[bytes], int]:
    if slide.direct is None:
        raise SystemExit("this slide is not made of JPEG tiles")
    table = slide.direct.tables[0]
    side = table.segment.width
    last = (grid.origins.astype(np.int64) + 255) // side
    first = grid.origins.astype(np.int64) // side
    corners = [first, last, np.stack([first[:, 0], last[:, 1]], 1), np.stack([last[:, 0], first[:, 1]], 1)]
    cells = np.unique(np.concatenate(corners), axis=0)
    indices = np.sort(cells[:, 1] * table.columns + cells[:, 0])
    found = NativeTiles(slide.direct, 0, indices).files(slice(None))
    return [jpeg for jpeg in found if jpeg is not None], side


def _size(store: Path) -> tuple[int, int]:
    files = [file for file in store.rglob("*") if file.is_file()]
    return len(files), sum(file.stat().st_size for file in files)


def _print(path: Path, cores: int, rates: dict[str, list[float]], tiles: int) -> None:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"\n{path.name}, {tiles} tiles of 256 px, {cores} core{'s' if cores > 1 else ''}")
    print(f"{'':34}{'tiles/s':>9} {'to raw':>7} {'to peers':>9}   range of tiles/s")
    for name, median in medians.items():
        ratios = f"{median / medians[BASE[0]]:7.2f} {median / medians[BASE[1]]:9.1f}"
        print(f"{name:34}{median:9.0f} {ratios}   {min(rates[name]):.0f} to {max(rates[name]):.0f}")


def main() -> None:
    """Measure one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, help="A large slide of JPEG tiles, 0.25 um/px.")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--out", type=Path, help="Folder to write in; a tmpfs leaves the disk out.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"Of {', '.join(PEERS)}.")
    parser.add_argument(
        "--only",
        default="",
        help="Pattern of rows; what all are compared with stays, and a store is read only if it is tiled.",
    )
    given = parser.parse_args()
    rows: dict[str, Callable[[Bench], float]] = {name: timed(name, run) for name, run in ROWS.items()}
    for name, _, python in (peer.partition("=") for peer in given.peer):
        if name not in PEERS or not python:
            parser.error(f"--peer is NAME=PYTHON, NAME of {', '.join(PEERS)}, not {name}")
        tasks = [*PEERS[name].read, *PEERS[name].tile]
        rows |= {f"{name}, {task}": PeerRow(name, task, Path(python)) for task in tasks}
    rows = {name: row for name, row in rows.items() if name in BASE or re.search(given.only, name)}
    measure(given.slide, (given.out or given.slide.parent).absolute(), given.cores, given.rounds, rows)


if __name__ == "__main__":
    main()
