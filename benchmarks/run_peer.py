"""Time one task of a peer, in an environment of the peer's own: ``bench_tiling.py --peer NAME=PYTHON`` calls this.

Nothing of ours is imported. Imports are not counted. ``read`` tasks are warm: they read the tiles of OUT/origins.npy,
and leave a few of them in OUT/pixels.npz to be compared. ``tile`` tasks run once, as a program does for its user.

    python run_peer.py NAME TASK SLIDE OUT MPP WORKERS
"""

import importlib.metadata
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Job, Read, Tile

KEPT = 20  # tiles to compare
WARM = 64  # tiles read before the clock starts


def time_reading(read: Read, job: Job) -> tuple[int, float]:
    """Read every tile once, after a few to warm up; tiles that are read twice or left out are an error."""
    rows = np.linspace(0, len(job.origins) - 1, KEPT).astype(int).tolist()
    wanted = frozenset(rows)
    kept: dict[int, np.ndarray] = {}
    seen = np.zeros(len(job.origins), int)

    def take(row: int, pixels: Any) -> None:  # noqa: ANN401  the peer's own array
        seen[row] += 1
        if row in wanted:
            kept[row] = np.asarray(pixels).copy()

    read(replace(job, origins=job.origins[:WARM]), take)
    seen[:] = 0
    began = time.perf_counter()
    read(job, take)
    seconds = time.perf_counter() - began
    if not (seen == 1).all():
        raise SystemExit(f"of {len(seen)} tiles, {(seen == 0).sum()} were not read and {(seen > 1).sum()} twice")
    np.savez(job.out / "pixels.npz", rows=rows, pixels=np.stack([kept[row] for row in rows]))
    return len(seen), seconds


def time_tiling(tile: Tile, job: Job) -> tuple[int, float]:
    """Tile the slide, once and cold: a program's user does, too."""
    began = time.perf_counter()
    tiles = tile(job)
    return tiles, time.perf_counter() - began


def main() -> None:
    """Print, as the last line, tiles, seconds and versions."""
    name, task, slide, out, mpp, workers = sys.argv[1:]
    peer = PEERS[name]
    job = Job(Path(slide).absolute(), Path(out).absolute(), float(mpp), int(workers))
    if task in peer.read:
        origins = [(int(x), int(y)) for x, y in np.load(job.out / "origins.npy", allow_pickle=False)]
        tiles, seconds = time_reading(peer.read[task](), replace(job, origins=origins))
    else:
        tiles, seconds = time_tiling(peer.tile[task](), job)
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in peer.packages)
    print(json.dumps({"tiles": tiles, "seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()
