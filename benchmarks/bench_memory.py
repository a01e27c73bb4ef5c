"""What keeping freed memory is worth to a training on the CPU.

    python benchmarks/bench_memory.py --rounds 5

Processes that keep it and processes that return it, as glibc does by default, take turns, on one thread; medians of
the seconds a step (32 pairs of synthetic tiles of 224 px, float32, compiled views), and of the ratio within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from wsi_lmc.batches import TileBatch
from wsi_lmc.encoder import Architecture
from wsi_lmc.stain import RUIFROK
from wsi_lmc.training import TrainConfig, learner
from wsi_lmc.training.group import Group

PX, BATCH, STEPS = 224, 32, 12


def seconds_a_step(architecture: Architecture, keep: bool) -> float:
    """Median of this process's steps, once the views are compiled."""
    if not keep:
        learner.keep_freed = lambda: None
    config = TrainConfig(batch=BATCH, architecture=architecture, precision="float32", compile_views="yes", device="cpu")
    mine = learner.Learner(config, PX, Group(0, 1, torch.device("cpu")))
    tiles = torch.randint(60, 256, (BATCH, PX, PX, 3), dtype=torch.uint8)
    batch = TileBatch(tiles, torch.tensor(RUIFROK).expand(BATCH, 2, 3))
    mine.learn(batch, describe=False)
    taken: list[float] = []
    for _ in range(STEPS):
        began = time.perf_counter()
        mine.learn(batch, describe=False)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _child(architecture: str, name: str) -> float:
    """What a process of its own measures."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--architecture", architecture, "--child", name]
    found = subprocess.run(command, env=own | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE, text=True)
    return float(found.stdout.splitlines()[-1])


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architecture", default="vit-demo")
    parser.add_argument("--child", choices=["keep", "return"])
    given = parser.parse_args()
    if given.child:
        print(json.dumps(seconds_a_step(given.architecture, given.child == "keep")))
        return
    rounds: list[dict[str, float]] = []
    for number in range(given.rounds):
        order = ("keep", "return") if number % 2 else ("return", "keep")
        rounds.append({name: _child(given.architecture, name) for name in order})
    for name in ("return", "keep"):
        print(f"{name:>6}: {statistics.median(found[name] for found in rounds):.3f} s a step")
    ratios = [found["return"] / found["keep"] for found in rounds]
    print(f" ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
