"""Do the scheduler, its memory and ``status`` hold for 10,000 slides? A simulated cohort, all but pixels being real.

    python benchmarks/bench_scale.py FOLDER --slides 10000

First, tasks that do nothing: what a block costs in the scheduler and on its way there and back. Then a cohort whose
slides have 15,000 tiles on average, from none to 100,000: readers that give tiles of one pixel, an encoder that takes
their mean; tasks, blocks, checkpoints, feature stores, records, locks and the executor are those of ``wsi-lmc embed``.
While it runs, ``wsi-lmc status`` is asked from another process, and the memory of the process that holds the scheduler
and of the workers is noted.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from wsi_lmc.cluster import DaskExecutor, LocalWorkers
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import Encoder
from wsi_lmc.engine import Block, Engine, Valid
from wsi_lmc.run import collect
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run
from wsi_lmc.steps import embed as steps
from wsi_lmc.steps.embed import EmbedTask, embed_slide
from wsi_lmc.steps.outcome import Outcome, Split, Stage
from wsi_lmc.steps.sources import Source
from wsi_lmc.tilestore import TileRows

BLOCK = 4096
AVERAGE = 15_000


@dataclass(frozen=True)
class Nothing:
    """A task without work."""

    slide_id: str
    stage: Stage = "embed"


def do_nothing(task: Nothing) -> Outcome:
    """Its step."""
    return Outcome(task.slide_id, "embed", "done")


def tiles_of(slide_id: str) -> int:
    """As many as a slide of that name has: log-normal, none for one in two hundred."""
    rng = np.random.default_rng(int(slide_id))
    return 0 if rng.random() < 0.005 else min(100_000, int(AVERAGE * rng.lognormal(-0.32, 0.8)))


def simulated(task: EmbedTask) -> Outcome | Split[EmbedTask]:
    """The real step, on slides that are not there."""
    fakes: dict[str, Any] = {"open_source": _no_source, "source_identity": _no_identity, "_load": _no_encoder}
    for name, fake in fakes.items():
        setattr(steps, name, fake)
    return embed_slide(task)


@contextmanager
def _no_source(path: Path) -> Iterator[Source]:
    count = tiles_of(path.name)
    rows = TileRows(np.zeros((count, 2), np.int32), np.ones(count, np.float32), np.zeros(count, np.uint8))
    described = {"slide": {"id": path.name, "mpp": [0.5, 0.5], "mpp_source": "simulated"}, "tile": {"px": 1}}
    yield Source(rows, 0.5, described, _no_blocks)


def _no_blocks(rows: range) -> Iterator[tuple[Block, Valid]]:
    for start in rows[::256]:
        size = min(256, rows.stop - start)
        yield np.full((size, 1, 1, 3), start % 251, np.uint8), np.zeros(size, np.uint8)


def _no_identity(path: Path) -> dict[str, str]:
    return {"slide_fingerprint": path.name, "tile_store": "simulated"}


class _Mean(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def _no_encoder(spec: str, sha256: str, config: EmbedConfig) -> Engine:
    zero = (0.0, 0.0, 0.0)
    about: dict[str, Any] = {
        "name": spec,
        "architecture": spec,
        "sha256": sha256,
        "dim": 3,
        "mean": zero,
        "std": (1.0,) * 3,
    }
    own: dict[str, Any] = {"mode": None, "trained_mpp": None, "input_px": 1, "fixed_input": False}
    return Engine(Encoder(**about, **own, module=_Mean(), device=torch.device("cpu")), None, config.batch)


def memory_gb(processes: list[psutil.Process]) -> float:
    """Resident memory."""
    return sum(process.memory_info().rss for process in processes if process.is_running()) / 1e9


def status_s(out: Path) -> tuple[float, str]:
    """How long ``wsi-lmc status`` takes, and its line on embedding."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "wsi_lmc", "status", str(out)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - began, next(line for line in said.splitlines() if line.startswith("embed"))


def scheduling(executor: DaskExecutor, count: int) -> None:
    """Print what a task that does nothing costs."""
    for _ in range(3):
        began = time.perf_counter()
        tasks = [Nothing(str(number)) for number in range(count)]
        for _ in executor.run(do_nothing, tasks, on_gpu=True):
            pass
        print(f"tasks that do nothing: {(time.perf_counter() - began) / count * 1000:.2f} ms each", flush=True)


def cohort(executor: DaskExecutor, out: Path, slides: int) -> None:
    """Embed the simulated cohort, and print how things stand every tenth of it."""
    entries = [SlideEntry(Path("/nowhere") / f"{number:05d}", f"{number:05d}") for number in range(slides)]
    config = EmbedConfig(batch=BLOCK, block=BLOCK, device="cpu", precision="float32")
    tasks = [EmbedTask(entry.slide_id, entry.path, out, "simulated", "0" * 64, config) for entry in entries]
    tiles = [tiles_of(entry.slide_id) for entry in entries]
    blocks = sum(max(1, -(-count // BLOCK)) for count in tiles)
    print(f"{slides} slides, {sum(tiles) / 1e6:.1f} M tiles, {blocks} blocks", flush=True)
    prepare_run(out)
    add_slides(out, entries)
    plan(out, "embed", Request(tuple(entry.slide_id for entry in entries)))
    me, began, ended = psutil.Process(), time.perf_counter(), 0

    def heard(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        if outcome.state == "failed":
            sys.exit(f"{outcome.slide_id}: {outcome.reason} {outcome.detail}")
        if ended % max(1, slides // 10) == 0:
            took, line = status_s(out)
            print(f"{time.perf_counter() - began:6.0f} s, {memory_gb([me]):.2f} GB here,", end=" ")
            print(
                f"{memory_gb(me.children(recursive=True)):.2f} GB workers; status in {took:.2f} s: {line}", flush=True
            )

    found = collect(executor.run(simulated, tasks, on_gpu=True), out, [task.slide_id for task in tasks], heard)
    took = time.perf_counter() - began
    if sum(outcome.tiles for outcome in found) != sum(tiles):
        sys.exit("tiles are missing")
    print(f"{took:.0f} s: {took / blocks * 1000:.1f} ms a block, all included; {took / slides * 1000:.1f} ms a slide")


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A new folder; it is removed in the end.")
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nothings", type=int, default=5_000)
    given = parser.parse_args()
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    given.folder.mkdir(parents=True)
    try:
        with DaskExecutor(LocalWorkers(given.workers, 4)) as executor:
            scheduling(executor, given.nothings)
            cohort(executor, given.folder, given.slides)
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
