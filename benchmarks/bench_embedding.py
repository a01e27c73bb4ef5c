"""How near does embedding a cohort come to what the device, or reading, can do alone? And against the peers' loop?

    python benchmarks/bench_embedding.py KANG_SLIDE FOLDER --largest 2000 --backend openvino --extra .venv/oracles

Builds twenty slides of very different sizes in FOLDER (from 50 tiles to ``--largest``, each a third more than the one
before) out of a real slide's JPEG tiles. Rows are interleaved in one run, in tiles a second over the whole cohort:

- the encoder alone, on tiles that are ready, in the batches that are used here;
- reading alone: slides opened, tissue found, all tiles decoded, nothing done with them;
- ``embed``: the same slides to feature stores, by worker processes that were started before;
- the peers' loop: for every slide a new DataLoader, one OpenSlide read a tile, torch in float32, as it comes; where
  the tiles lie it is told.

``embed`` should reach the slower one of the first two. Machines change their speed within a minute, so the encoder is
timed before and after, and ratios are medians of those within a round. Cosines are to float32 by torch.
"""

import argparse
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import openslide
import psutil
import torch
from big_slides import UM, build
from torch.utils.data import DataLoader, Dataset

from wsi_lmc.backends import accelerated, lanes_of, used_by
from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder, visible_gpus
from wsi_lmc.engine import Engine
from wsi_lmc.executor import Executor
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.grid import GridConfig
from wsi_lmc.pooling import pooled
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort
from wsi_lmc.steps.sources import open_source
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.threads import available_cores

SLIDES, SMALLEST = 20, 50
NATIVE = TileConfig(grid=GridConfig(tile_mpp=UM))


@dataclass(frozen=True)
class Bench:
    """What all rows need; ``tiles`` is how many the cohort has."""

    slides: list[SlideEntry]
    folder: Path
    encoder: str
    config: EmbedConfig
    sample: np.ndarray
    origins: dict[str, np.ndarray]

    @property
    def tiles(self) -> int:
        """Tiles of the whole cohort."""
        return sum(len(origins) for origins in self.origins.values())


def cohort(folder: Path, source: Path, largest: int) -> list[SlideEntry]:
    """Slides of about ``SMALLEST`` to ``largest`` tiles; a third of their plane is tissue. Those there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[SlideEntry] = []
    for number in range(SLIDES):
        tiles = SMALLEST * (largest / SMALLEST) ** (number / (SLIDES - 1))
        side = 256 * math.ceil(math.sqrt(3 * tiles))
        path = folder / f"slide-{number:02d}-{side}.tif"
        if not path.is_file():
            build(path.with_suffix(".part"), source, side, 256).rename(path)
        entries.append(SlideEntry(path, path.stem))
    return entries


def _task(bench_folder: Path, entry: SlideEntry) -> TileTask:
    return TileTask(entry, bench_folder / "reading", NATIVE)


def reading(bench: Bench) -> int:
    """All tiles of all slides, by this process's threads."""
    count = 0
    for entry in bench.slides:
        with open_source(_task(bench.folder, entry)) as source:
            count += sum(len(pixels) for pixels, _ in source.blocks(range(len(source))))
    return count


def alone(engine: Engine, bench: Bench, most: int) -> int:
    """The encoder on tiles that are there."""
    size, lanes = engine.at_once, lanes_of(engine.encoder)
    batches = max(1, min(most, bench.tiles) // size)
    ready = torch.from_numpy(np.resize(bench.sample, (size, *bench.sample.shape[1:])))
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lambda _: engine.encoder.embed(ready), range(batches)))
    return batches * size


def embed(executor: Executor, bench: Bench, slides: Sequence[SlideEntry]) -> int:
    """The command's own way."""
    out = bench.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    found = embed_cohort(
        EmbedInputs(slides=slides, tile=NATIVE), bench.encoder, out, bench.config, RunOptions(executor)
    )
    wrong = [outcome for outcome in found if outcome.state != "done"]
    if wrong:
        raise RuntimeError(f"{wrong[0].slide_id}: {wrong[0].reason}")
    return sum(outcome.tiles for outcome in found)


class _Tiles(Dataset[torch.Tensor]):
    """A slide as peers read it."""

    def __init__(self, path: Path, origins: np.ndarray) -> None:
        self._path, self._origins = path, origins
        self._slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        return len(self._origins)

    def __getitem__(self, row: int) -> torch.Tensor:
        self._slide = self._slide or openslide.OpenSlide(self._path)
        x, y = (int(value) for value in self._origins[row])
        return torch.from_numpy(np.asarray(self._slide.read_region((x, y), 0, (256, 256)).convert("RGB")).copy())


def peer(bench: Bench, slides: Sequence[SlideEntry]) -> int:
    """A DataLoader a slide, torch in float32."""
    encoder = load_encoder(bench.encoder, bench.config.device_here())
    count = 0
    for entry in slides:
        tiles = _Tiles(entry.path, bench.origins[entry.slide_id])
        found = [encoder.embed(part) for part in DataLoader(tiles, 64, num_workers=min(2, available_cores()))]
        np.save(bench.folder / "peer.npy", torch.cat(found).cpu().numpy())
        count += len(tiles)
    return count


class Memory:
    """Resident memory of this process and its children, all along; in GB."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(1.0):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.seen.append(total / 1e9)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def prepare(given: argparse.Namespace) -> Bench:
    """The cohort, where its tiles lie, and some of them."""
    slides = cohort(given.folder / "slides", given.source, given.largest)
    origins: dict[str, np.ndarray] = {}
    sample: list[np.ndarray] = []
    for entry in slides:
        with open_source(_task(given.folder, entry)) as source:
            origins[entry.slide_id] = source.rows.origins
            if not sample:
                sample += [pixels.copy() for pixels, _ in source.blocks(range(min(64, len(source))))]
    config = EmbedConfig(backend=given.backend, precision=given.precision, batch=given.batch)
    return Bench(slides, given.folder, given.encoder, config, np.concatenate(sample), origins)


def busy_share(engine: Engine, bench: Bench) -> float:
    """Of the time from the first tile read to the last feature: when the device had a batch, four slides in work."""

    def through(entry: SlideEntry) -> None:
        with open_source(_task(bench.folder, entry)) as source:
            engine.embed(source.blocks(range(len(source))), np.empty((len(source), engine.encoder.dim), np.float32))

    began, idle = time.perf_counter(), engine.idle_s
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(through, bench.slides))
    return 1 - (engine.idle_s - idle) / (time.perf_counter() - began)


def cosine(engine: Engine, bench: Bench) -> float:
    """The smallest of any sampled tile's features to torch's in float32."""
    exact = pooled(load_encoder(bench.encoder, bench.config.device_here()), "auto").embed(
        torch.from_numpy(bench.sample)
    )
    return float(torch.cosine_similarity(engine.encoder.embed(torch.from_numpy(bench.sample)), exact).min())


def measure(rows: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tiles a second of each row in each round."""
    rates: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds):
        for name, run in rows.items():
            began = time.perf_counter()
            count = run()
            rates[name].append(count / (time.perf_counter() - began))
            print(f"  round {number + 1}: {name:34} {rates[name][-1]:9.1f}", flush=True)
    return rates


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest", type=int, default=20_000)
    parser.add_argument("--encoder", default="untrained:vit-tiny")
    parser.add_argument("--backend", choices=["torch", "openvino"], default="torch")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-slides", type=int, default=SLIDES, help="Every how manyth slide the peers' loop gets.")
    parser.add_argument("--extra", type=Path, help="Folder of packages that are not installed.")
    given = parser.parse_args()
    if given.extra:
        import sys

        sys.path.append(str(given.extra))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(given.extra)]))
    bench = prepare(given)
    device = bench.config.device_here()
    encoder = load_encoder(given.encoder, device, bench.config.precision_on(device))
    encoder = accelerated(pooled(encoder, "auto"), given.backend)
    engine = Engine(encoder, None, bench.config.batch_on(device), lanes_of(encoder))
    near = cosine(engine, bench)
    print(
        f"{SLIDES} slides, {min(map(len, bench.origins.values()))} to {max(map(len, bench.origins.values()))} tiles,",
        end=" ",
    )
    print(
        f"{bench.tiles} in all; {given.encoder} on {device}, {engine.encoder.precision} by {used_by(engine.encoder)},",
        end=" ",
    )
    print(f"batch {engine.at_once}, {available_cores()} cores; smallest cosine to float32 {near:.6f}")
    some = bench.slides[:: max(1, SLIDES // given.peer_slides)]
    rows: dict[str, Callable[[], int]] = {
        "encoder alone": lambda: alone(engine, bench, 768 if device.type == "cpu" else 50_000),
        "reading alone": lambda: reading(bench),
        "peers' loop": lambda: peer(bench, some),
    }
    with ExitStack() as stack, Memory() as memory:
        for count in given.workers:
            began = time.perf_counter()
            executor = stack.enter_context(make_executor(LocalWorkers(count, 4, visible_gpus())))
            embed(executor, bench, bench.slides[:1])
            print(
                f"{count} workers started, the model loaded, the first slide done: {time.perf_counter() - began:.1f} s"
            )
            rows[f"embed, {count} workers"] = lambda executor=executor: embed(executor, bench, bench.slides)
        rows["encoder alone, again"] = rows["encoder alone"]
        report(measure(rows, given.rounds))
    print(f"the device had a batch {busy_share(engine, bench):.1%} of the time (by threads of one process)")
    quarter = len(memory.seen) // 4
    first, last = max(memory.seen[:quarter]), max(memory.seen[-quarter:])
    print(f"memory, GB: {first:.2f} in the first quarter, {last:.2f} in the last")
    plain = replace(bench.config, backend="torch", precision="float32")
    check(bench, plain)


def report(rates: dict[str, list[float]]) -> None:
    """Print medians: of rates, and of their ratios within each round."""
    both = zip(rates["encoder alone"], rates["encoder alone, again"], strict=True)
    encoder = [(before + after) / 2 for before, after in both]
    limit = [min(rates) for rates in zip(encoder, rates["reading alone"], strict=True)]
    print(f"\n{'':34} {'tiles/s':>9} {'to the limit':>13} {'to the peers':>13}")
    for name, found in rates.items():
        ratios = (_median_ratio(found, limit), _median_ratio(found, rates["peers' loop"]))
        print(f"{name:34} {statistics.median(found):9.1f} {ratios[0]:13.2f} {ratios[1]:13.2f}")


def _median_ratio(found: list[float], other: list[float]) -> float:
    return statistics.median(one / two for one, two in zip(found, other, strict=True))


def check(bench: Bench, plain: EmbedConfig) -> None:
    """The features that were written are those of the plain loop, up to precision."""
    entry = bench.slides[0]
    store = FeatureStore.open(bench.folder / "run" / "features" / f"{entry.slide_id}.zarr")
    tiles = _Tiles(entry.path, store.origins)
    exact = load_encoder(bench.encoder, plain.device_here()).embed(
        torch.stack([tiles[row] for row in range(len(tiles))])
    )
    found = torch.from_numpy(store.features).float()
    print(f"smallest cosine of {len(tiles)} written features to a plain loop: ", end="")
    print(f"{float(torch.cosine_similarity(found, exact.cpu()).min()):.6f}")


if __name__ == "__main__":
    main()
