"""How fast are stain vectors and views, and how far off are vectors from a share of the pixels?

    python benchmarks/bench_stain.py SITE... --peers .venv/oracles

``SITE`` is a folder of images. Speed is on tiles of the first one: every row is timed in every round, the rounds are
interleaved, and ratios are of medians within this run. The peers work on one tile at a time, as their users do:
Macenko's method by torchstain, and by numpy with an SVD of all tissue pixels.

Angles are between the vectors from a share of a tile's pixels and those from all of them, on tiles trusted then, in
degrees. Pixels are taken in three ways: every so manyth along x and y; one at random in each square of that side; at
random anywhere. "neighbours" says how far two tiles of one image are apart, all pixels: what an error is small against.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from bench_invariance import PX, enlarged

from wsi_lmc.compiling import Checked
from wsi_lmc.patches import read_image, split_image
from wsi_lmc.stain import (
    SeparationConfig,
    ViewConfig,
    draw_views,
    optical_density,
    separate,
    separate_density,
    turned_planes,
)
from wsi_lmc.training.learner import view_images

STRIDES = (1, 2, 4, 8)
ALL_PIXELS = SeparationConfig(stride=1)
Sample = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]


def tiles_of(site: Path, most: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """At most two tiles an image, and which of them are such a pair."""
    images = sorted(path for path in site.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif"))
    tiles: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    for path in images[:: max(1, len(images) * 2 // most)]:
        found = split_image(enlarged(read_image(path)), PX)
        if len(found) > 1:
            pairs.append((len(tiles), len(tiles) + 1))
        tiles.extend(found[:2])
    return torch.from_numpy(np.stack(tiles[:most])), [pair for pair in pairs if pair[1] < most]


def strided(tiles: torch.Tensor, stride: int, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG001  as the others
    """Every so manyth pixel along x and y."""
    return tiles[:, ::stride, ::stride].flatten(1, 2)


def jittered(tiles: torch.Tensor, stride: int, generator: torch.Generator) -> torch.Tensor:
    """One pixel at random in each square."""
    y, x = (torch.arange(0, side, stride) for side in tiles.shape[1:3])
    shift = torch.randint(stride, (2, len(y), len(x)), generator=generator)
    return tiles[:, y.unsqueeze(1) + shift[0], x + shift[1]].flatten(1, 2)


def scattered(tiles: torch.Tensor, stride: int, generator: torch.Generator) -> torch.Tensor:
    """As many pixels, at random anywhere."""
    pixels = tiles.flatten(1, 2)
    return pixels[:, torch.randperm(pixels.shape[1], generator=generator)[: pixels.shape[1] // stride**2]]


def degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angles between unit vectors."""
    return torch.rad2deg(torch.arccos((a.double() * b.double()).sum(-1).clamp(-1, 1)))


def angles(site: Path, most: int) -> None:
    """Print what a share of the pixels costs at a site."""
    tiles, pairs = tiles_of(site, most)
    parts = tiles.split(16)
    found = [separate(part, ALL_PIXELS) for part in parts]
    vectors, trusted = (torch.cat([getattr(part, name) for part in found]) for name in ("vectors", "trusted"))
    print(f"\n{site.name}: {len(tiles)} tiles, {int(trusted.sum())} trusted")
    print(f"{'degrees from all pixels':28}{'H median':>10}{'95 %':>7}{'E median':>10}{'95 %':>7}{'trust differs':>15}")
    for sample in (strided, jittered, scattered):
        for stride in STRIDES[1:]:
            generator = torch.Generator().manual_seed(0)
            densities = (optical_density(sample(part, stride, generator).unsqueeze(1)) for part in parts)
            less = [separate_density(density, ALL_PIXELS) for density in densities]
            other = torch.cat([part.trusted for part in less])
            off = degrees(torch.cat([part.vectors for part in less]), vectors)[trusted]
            _row(f"1/{stride**2}, {sample.__name__}", off, float((other != trusted).double().mean()))
    rows = torch.tensor([pair for pair in pairs if trusted[list(pair)].all()], dtype=torch.int64).view(-1, 2)
    if len(rows):
        _row("neighbours, all pixels", degrees(vectors[rows[:, 0]], vectors[rows[:, 1]]), None)


def _row(name: str, off: torch.Tensor, differs: float | None) -> None:
    quantiles = torch.quantile(off, torch.tensor([0.5, 0.95], dtype=off.dtype), dim=0)
    cells = "".join(f"{quantiles[0, k]:{10}.2f}{quantiles[1, k]:{7}.2f}" for k in (0, 1))
    print(f"{name:28}{cells}" + ("" if differs is None else f"{differs:15.3f}"))


def by_svd(tiles: torch.Tensor) -> None:
    """Macenko's method in plain numpy, uncentred, a tile at a time."""
    for tile in tiles.numpy():
        density = np.maximum(-np.log(np.maximum(tile.reshape(-1, 3).astype(np.float64), 1) / 255), 0)
        density = density[(density >= 0.15).all(1)]
        basis = np.linalg.svd(density, full_matrices=False)[2][:2]
        basis *= np.where(basis @ density.mean(0) < 0, -1, 1)[:, None]
        plane = density @ basis.T
        ends = np.percentile(np.arctan2(plane[:, 1], plane[:, 0]), [1, 99])
        _ = np.stack([np.cos(ends), np.sin(ends)], 1) @ basis


def two_views(
    tiles: torch.Tensor, stains: torch.Tensor, mode: Literal["paper", "robust"], render: Callable[..., object]
) -> None:
    """Both views of each tile, as a training step makes them."""
    drawn = draw_views(len(tiles), ViewConfig(mode), torch.Generator().manual_seed(0))
    render(turned_planes(tiles, drawn), stains, drawn, mode)


def rows_of(tiles: torch.Tensor, peers: Path | None) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    stains = separate(tiles, ALL_PIXELS).vectors
    generator = torch.Generator().manual_seed(0)
    rows: dict[str, Callable[[], object]] = {
        f"stains, 1/{stride**2} of the pixels": partial(separate, tiles, SeparationConfig(stride=stride))
        for stride in STRIDES
    }
    rows["stains, 1/16, jittered"] = lambda: separate_density(
        optical_density(jittered(tiles, 4, generator).unsqueeze(1)), ALL_PIXELS
    )
    rows["stains, numpy and SVD"] = lambda: by_svd(tiles)
    for mode in ("paper", "robust"):
        for name, call in ((mode, view_images), (f"{mode}, compiled", Checked(view_images, 1e-3))):
            rows[f"two views, {name}"] = partial(two_views, tiles, stains, mode, call)
    if peers:
        sys.path.append(str(peers))
        planes = [tile.permute(2, 0, 1) for tile in tiles]
        peer = import_module("torchstain.torch.normalizers.macenko").TorchMacenkoNormalizer()
        fitted = import_module("torchstain.torch.normalizers.macenko").TorchMacenkoNormalizer()
        rows["stains, torchstain's fit"] = lambda: [peer.fit(plane) for plane in planes]
        rows["one picture, torchstain"] = lambda: [fitted.normalize(plane, stains=False) for plane in planes]
    return rows


def speed(tiles: torch.Tensor, rounds: int, peers: Path | None) -> None:
    """Print tiles a second and ratios."""
    rows = rows_of(tiles, peers)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, call in rows.items():
            began = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - began)
    rates = {name: len(tiles) / statistics.median(found) for name, found in seconds.items()}
    against = {"all pixels": rates["stains, 1/1 of the pixels"]}
    against |= {"torchstain": rates["stains, torchstain's fit"]} if peers else {}
    print(f"{len(tiles)} tiles of {PX} px at a time, {torch.get_num_threads()} thread(s)")
    print(f"{'':28}{'tiles/s':>9}" + "".join(f"{'to ' + name:>16}" for name in against))
    for name, rate in rates.items():
        print(f"{name:28}{rate:9.1f}" + "".join(f"{rate / base:16.2f}" for base in against.values()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=Path, nargs="+", help="Folders of images; speed is measured on the first.")
    parser.add_argument("--peers", type=Path, help="Folder with torchstain.")
    parser.add_argument("--tiles", type=int, default=200, help="Most tiles of a site whose angles are measured.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    speed(tiles_of(given.sites[0], given.batch)[0], given.rounds, given.peers)
    for site in given.sites:
        angles(site, given.tiles)


if __name__ == "__main__":
    main()
