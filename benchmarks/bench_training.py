"""How much of a training step is the model's own? And against the step one would assemble from libraries?

    python benchmarks/bench_training.py --tiles IMAGES --peers .venv/oracles            # CPU
    python benchmarks/bench_training.py --device cuda --batch 32 256 2048 --peak 989

Rows are interleaved in one run, medians of several rounds, in pairs of views a second, on synthetic tissue or, with
``--tiles``, on tiles of 256 px cut from the images of a folder:

- the limit: forward and backward of the same network, in the same precision, on views that are ready;
- this training's step: views, both forwards, loss, backward, AdamW, from tiles and stain vectors; and with its reading
  of tiles from a store;
- a peer's step: Macenko augmentation of each tile as torchstain finds its stains, lightly's loss, timm's network as it
  comes; in float32, which is what one gets without asking, and in bfloat16.

"To the limit" is against the row of the same precision.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from wsi_lmc.batches import TileBatch, TileBatches, TileSampler
from wsi_lmc.encoder import EncoderConfig, build_encoder, resolve_device
from wsi_lmc.patches import read_image, split_image, write_patches
from wsi_lmc.stain import RUIFROK, SeparationConfig, ViewConfig, draw_views, separate
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.group import Group
from wsi_lmc.training.learner import Learner, view_images

PX = 256
GFLOP_A_PAIR = 20.5  # forward and backward of two views through ViT-Tiny at 256 px
Step = Callable[[], object]
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def tissue(count: int) -> torch.Tensor:
    """Tiles of two stains in smooth fields."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 2, 17, 17), generator=generator) * 1.5
    fields = torch.nn.functional.interpolate(coarse, (PX, PX), mode="bicubic").clamp(min=0)
    density = torch.einsum("nkhw,kc->nhwc", fields, torch.tensor(RUIFROK))
    density += 0.01 * torch.randn(density.shape, generator=generator)
    return (255 * torch.exp(-density.clamp(min=0))).round().to(torch.uint8)


def chosen_images(folder: Path, tiles: int) -> list[Path]:
    """Images of a folder in random order, as many as hold ``tiles`` tiles."""
    suffixes = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    random.Random(0).shuffle(found)  # noqa: S311  any order
    chosen: list[Path] = []
    count = 0
    for path in found:
        if count >= tiles:
            break
        chosen.append(path)
        count += len(split_image(read_image(path), PX))
    return chosen


def cut(images: list[Path], count: int) -> torch.Tensor:
    """The first ``count`` tiles of ``images``."""
    return torch.from_numpy(np.concatenate([split_image(read_image(path), PX) for path in images])[:count])


def learner_of(batch: int, device: torch.device, precision: Precision, compiled: bool = True) -> Learner:
    """The package's own trainer."""
    views = "yes" if compiled else "no"
    config = TrainConfig(batch=batch, steps=10_000, precision=precision, compile_views=views)
    return Learner(config, PX, Group(0, 1, device))


def limit(tiles: torch.Tensor, device: torch.device, precision: Precision) -> Step:
    """Forward and backward alone, of the network as the training runs it."""
    model = learner_of(len(tiles), device, precision).model
    drawn = draw_views(len(tiles), ViewConfig(), torch.Generator(device).manual_seed(0))
    stains = torch.tensor(RUIFROK, device=device).expand(len(tiles), 2, 3)
    images, _ = view_images(tiles.to(device), stains, drawn, "robust")

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            first, second = model(images).chunk(2)
        model.zero_grad(set_to_none=True)
        (first.float() * second.float()).sum().backward()

    return step


def ours(tiles: torch.Tensor, device: torch.device, precision: Precision, compiled: bool = True) -> Step:
    """The package's own step."""
    learner = learner_of(len(tiles), device, precision, compiled)
    batch = TileBatch(tiles, separate(tiles, SeparationConfig()).vectors)
    return lambda: learner.learn(batch, describe=False)


def ours_reading(images: list[Path], batch: int, device: torch.device, folder: Path) -> tuple[Step, list[float]]:
    """The package's own step in its default precision, tiles read ahead from a store; and its seconds of waiting."""
    config = TrainConfig().resolved(device)
    learner = learner_of(batch, device, "bfloat16" if config.precision == "bfloat16" else "float32")
    store = write_patches(folder, "tiles", images, PX, 0.5)
    stains = separate(torch.from_numpy(store.read(np.arange(len(store)))), SeparationConfig()).vectors.numpy()
    reader: Iterator[TileBatch] = TileBatches(
        [store], [stains], TileSampler([np.arange(len(store))], batch, 0), config.prefetch
    ).iterate(0, 10_000)
    waited: list[float] = []

    def step() -> None:
        began = time.perf_counter()
        tiles = next(reader)
        waited.append(time.perf_counter() - began)
        learner.learn(tiles, describe=False)

    return step, waited


def views_alone(tiles: torch.Tensor, device: torch.device) -> Step:
    """The making of views, compiled, for its share."""
    generator = torch.Generator(device).manual_seed(0)
    stains = torch.tensor(RUIFROK, device=device).expand(len(tiles), 2, 3)
    held, compiled = tiles.to(device), torch.compile(view_images, dynamic=False)
    return lambda: compiled(held, stains, draw_views(len(tiles), ViewConfig(), generator), "robust")


def assembled(tiles: torch.Tensor, device: torch.device, precision: Precision, peers: Path) -> Step:
    """Torchstain's stains of each tile, scaled at random, lightly's loss, torch's AdamW."""
    sys.path.append(str(peers))
    stains_of = import_module("torchstain.torch.normalizers.macenko").TorchMacenkoNormalizer
    criterion = import_module("lightly.loss.barlow_twins_loss").BarlowTwinsLoss(lambda_param=0.005)
    model = build_encoder(EncoderConfig(), PX, 0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def view(tile: torch.Tensor) -> torch.Tensor:
        normaliser = stains_of()
        normaliser.fit(tile.permute(2, 0, 1))
        normaliser.maxCRef = normaliser.maxCRef * (0.5 + 1.5 * torch.rand(2))
        shown, _, _ = normaliser.normalize(tile.permute(2, 0, 1), stains=False)
        return shown.reshape(PX, PX, 3).permute(2, 0, 1) / 127.5 - 1

    def step() -> None:
        images = torch.stack([view(tile) for _ in range(2) for tile in tiles]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            first, second = model(images).chunk(2)
        loss = criterion(first.float(), second.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def measure(rows: dict[str, Step], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each row; every round runs all of them, and the first one does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, step in rows.items():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def compare(batch: int, given: argparse.Namespace, folder: Path) -> None:
    """Print the table of one batch size."""
    device: torch.device = resolve_device(given.device)
    default = TrainConfig().resolved(device).precision
    images = chosen_images(given.tiles, 2 * batch) if given.tiles else []
    tiles = cut(images, batch) if images else tissue(batch)
    rows: dict[str, Step] = {}
    waited: list[float] = []
    for precision in PRECISIONS:
        rows[f"forward + backward alone, {precision}"] = limit(tiles, device, precision)
        rows[f"this step, {precision}"] = ours(tiles, device, precision)
    if images:
        rows[f"this step, reading tiles, {default}"], waited = ours_reading(images, batch, device, folder)
    rows["making views alone"] = views_alone(tiles, device)
    if given.peers:
        for precision in PRECISIONS:
            rows[f"torchstain + lightly, {precision}"] = assembled(tiles, device, precision, given.peers)
    seconds = measure(rows, device, given.rounds)
    source = f"tiles of {given.tiles.name}" if images else "synthetic tissue"
    print(f"\n{batch} pairs, {source}, {device}, {torch.get_num_threads()} threads; default precision: {default}")
    print(f"{'':40}{'pairs/s':>9} {'to the limit':>13} {'TFLOP/s':>9}")
    for name, found in seconds.items():
        limited = seconds.get(f"forward + backward alone, {name.rsplit(' ', 1)[-1]}")
        ratio = f"{limited / found:13.2f}" if limited else f"{'':13}"
        speed = f"{GFLOP_A_PAIR * batch / found / 1000:9.2f}" if "views" not in name else ""
        print(f"{name:40}{batch / found:9.1f} {ratio} {speed}")
    own = seconds[f"this step, {default}"]
    print(f"making views: {seconds['making views alone'] / own:.1%} of this step in {default}")
    if waited:
        reading = seconds[f"this step, reading tiles, {default}"]
        print(f"waiting for tiles: {statistics.median(waited[1:]) / reading:.1%} of the step that reads them")
    if given.peak:
        print(f"model FLOPs utilisation in {default}: {GFLOP_A_PAIR * batch / own / 1000 / given.peak:.1%}")
    if given.peers:
        peer = {precision: seconds[f"torchstain + lightly, {precision}"] for precision in PRECISIONS}
        same = ", ".join(f"{peer[name] / seconds[f'this step, {name}']:.2f} in {name}" for name in peer)
        print(f"this step to torchstain + lightly: {same}; default to default {peer['float32'] / own:.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tiles", type=Path, help="Folder of images to cut into tiles; synthetic ones without it.")
    parser.add_argument("--peers", type=Path, help="Folder with torchstain and lightly.")
    parser.add_argument("--peak", type=float, help="The device's dense bfloat16 TFLOP/s, for its utilisation.")
    given = parser.parse_args()
    for batch in given.batch:
        with tempfile.TemporaryDirectory() as folder:
            compare(batch, given, Path(folder))


if __name__ == "__main__":
    main()
