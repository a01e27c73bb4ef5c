"""How much of a training step is the model's own? And against the step one would assemble from libraries?

    python benchmarks/bench_training.py --peers .venv/oracles            # CPU
    python benchmarks/bench_training.py --device cuda --batch 256 --precision bfloat16

Rows are interleaved in one run, medians of several rounds, in pairs of views a second:

- the limit: forward and backward of the same network on views that are ready;
- this training's step: views, both forwards, loss, backward, AdamW, from tiles and stain vectors;
- a peer's step: Macenko augmentation of each tile as torchstain finds its stains, lightly's loss, the same network.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

import torch

from wsi_lmc.batches import TileBatch
from wsi_lmc.encoder import EncoderConfig, build_encoder, resolve_device
from wsi_lmc.stain import RUIFROK, SeparationConfig, ViewConfig, draw_views, separate, turned_planes
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.group import Group
from wsi_lmc.training.learner import Learner, view_images

PX = 256
Step = Callable[[], object]


def tissue(count: int) -> torch.Tensor:
    """Tiles of two stains in smooth fields."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 2, 17, 17), generator=generator) * 1.5
    fields = torch.nn.functional.interpolate(coarse, (PX, PX), mode="bicubic").clamp(min=0)
    density = torch.einsum("nkhw,kc->nhwc", fields, torch.tensor(RUIFROK))
    density += 0.01 * torch.randn(density.shape, generator=generator)
    return (255 * torch.exp(-density.clamp(min=0))).round().to(torch.uint8)


def limit(tiles: torch.Tensor, device: torch.device, bf16: bool) -> Step:
    """Forward and backward alone."""
    model = build_encoder(EncoderConfig(), PX, 0).to(device)
    drawn = draw_views(len(tiles), ViewConfig(), torch.Generator(device).manual_seed(0))
    stains = torch.tensor(RUIFROK, device=device).expand(len(tiles), 2, 3)
    images, _ = view_images(turned_planes(tiles.to(device), drawn), stains, drawn, "robust")

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            first, second = model(images).chunk(2)
        model.zero_grad(set_to_none=True)
        (first.float() * second.float()).sum().backward()

    return step


def ours(tiles: torch.Tensor, device: torch.device, precision: str, compiled: bool) -> Step:
    """The package's own step."""
    config = TrainConfig(
        batch=len(tiles),
        precision=cast(Literal["float32", "bfloat16"], precision),
        compile_views="yes" if compiled else "no",
    )
    learner = Learner(config, PX, Group(0, 1, device))
    batch = TileBatch(tiles, separate(tiles, SeparationConfig()).vectors)
    return lambda: learner.learn(batch, describe=False)


def views_alone(tiles: torch.Tensor, device: torch.device) -> Step:
    """The making of views without a compiler, for its share."""
    generator = torch.Generator(device).manual_seed(0)
    stains = torch.tensor(RUIFROK, device=device).expand(len(tiles), 2, 3)
    held = tiles.to(device)

    def step() -> None:
        drawn = draw_views(len(tiles), ViewConfig(), generator)
        view_images(turned_planes(held, drawn), stains, drawn, "robust")

    return step


def assembled(tiles: torch.Tensor, device: torch.device, bf16: bool, peers: Path) -> Step:
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
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            first, second = model(images).chunk(2)
        loss = criterion(first.float(), second.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="Folder with torchstain and lightly.")
    given = parser.parse_args()
    device, bf16 = resolve_device(given.device), given.precision == "bfloat16"
    tiles = tissue(given.batch)
    rows = {
        "forward + backward alone": limit(tiles, device, bf16),
        "this step": ours(tiles, device, given.precision, compiled=True),
        "this step, views not compiled": ours(tiles, device, given.precision, compiled=False),
        "views alone, not compiled": views_alone(tiles, device),
    }
    if given.peers:
        rows["torchstain + lightly"] = assembled(tiles, device, bf16, given.peers)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(given.rounds + 1):
        for name, step in rows.items():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - began)
    medians = {name: given.batch / statistics.median(found) for name, found in seconds.items()}
    print(f"\n{given.batch} pairs, {given.precision}, {device}, {torch.get_num_threads()} threads")
    print(f"{'':32}{'pairs/s':>9} {'to the limit':>13}")
    for name, rate in medians.items():
        print(f"{name:32}{rate:9.1f} {rate / medians['forward + backward alone']:13.2f}")


if __name__ == "__main__":
    main()
