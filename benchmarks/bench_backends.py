"""How fast is an encoder on this CPU, in which precision and by which backend, and how near are its features?

    python benchmarks/bench_backends.py TILES --encoder untrained:vit-tiny

``TILES`` is a folder of images, cut into tiles of 256 px; ``--encoder`` is a spec as ``wsi-lmc embed`` takes it. Every
row is timed in every round, the rounds are interleaved, and ratios are of medians to torch in float32 at the same
batch. The cosine is the smallest of any tile's feature to that of torch in float32.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import torch

from wsi_lmc.backends import Backend, accelerated, lanes_of, used_by
from wsi_lmc.encoder import Encoder, Precision, load_encoder
from wsi_lmc.patches import read_image, split_image
from wsi_lmc.pooling import pooled
from wsi_lmc.threads import threads_of_process

PX = 256


def tiles_of(folder: Path, count: int) -> torch.Tensor:
    """The first ``count`` tiles of a folder's images."""
    found: list[torch.Tensor] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif", ".bmp"} and len(found) < count:
            found += [torch.from_numpy(tile) for tile in split_image(read_image(path), PX)]
    if len(found) < count:
        sys.exit(f"{folder} holds {len(found)} tiles of {PX} px, {count} are needed")
    return torch.stack(found[:count])


def encoders_of(spec: str) -> dict[tuple[Backend, Precision], Encoder]:
    """The encoder by every backend in every precision."""
    found: dict[tuple[Backend, Precision], Encoder] = {}
    for backend in get_args(Backend):
        for precision in get_args(Precision):
            encoder = load_encoder(spec, torch.device("cpu"), precision)
            found[backend, precision] = accelerated(pooled(encoder, "auto"), backend)
    return found


def seconds_a_batch(encoder: Encoder, batch: torch.Tensor) -> float:
    """With as many batches at a time as the backend computes best."""
    lanes = lanes_of(encoder)
    with ThreadPoolExecutor(lanes) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: encoder.embed(batch), range(lanes)))
        return (time.perf_counter() - began) / lanes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--encoder", default="untrained:vit-tiny")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(threads_of_process())
    tiles = tiles_of(given.tiles, max(given.batches))
    encoders = encoders_of(given.encoder)
    exact = encoders["torch", "float32"].embed(tiles)
    cosines = {  # which also converts what has to be converted
        row: float(torch.cosine_similarity(encoder.embed(tiles), exact).min()) for row, encoder in encoders.items()
    }
    seconds: dict[tuple[Backend, Precision, int], list[float]] = {}
    for _ in range(given.rounds):
        for batch in given.batches:
            for row, encoder in encoders.items():
                seconds.setdefault((*row, batch), []).append(seconds_a_batch(encoder, tiles[:batch]))
    rates = {row: row[2] / statistics.median(found) for row, found in seconds.items()}
    print(f"{given.encoder}, {PX} px, {torch.get_num_threads()} threads, {given.rounds} rounds\n")
    print(f"{'batch':>5}  {'backend':9} {'precision':9} {'tiles/s':>8} {'to float32':>10} {'cosine':>10}")
    for (backend, precision, batch), rate in rates.items():
        refused = "" if used_by(encoders[backend, precision]) == backend else "  refused: this is torch"
        ratio = rate / rates["torch", "float32", batch]
        near = cosines[backend, precision]
        print(f"{batch:5}  {backend:9} {precision:9} {rate:8.1f} {ratio:10.2f} {near:10.6f}{refused}")


if __name__ == "__main__":
    main()
