"""The usual alternative: the same network trained on the source's labels, with the same steps, tiles and schedule."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsi_lmc.batches import TileBatch, gather
from wsi_lmc.compiling import Checked
from wsi_lmc.encoder import (
    ENCODER_FOLDER,
    EncoderConfig,
    EncoderMetadata,
    build_encoder,
    resolve_device,
    save_encoder,
    seeded,
)
from wsi_lmc.errors import TrainingError
from wsi_lmc.memory import keep_freed
from wsi_lmc.publish import publishing
from wsi_lmc.stain import draw_views, turned_planes
from wsi_lmc.stainstore import fill_untrusted, load_or_estimate
from wsi_lmc.study.data import LabelledTiles
from wsi_lmc.training import TrainConfig
from wsi_lmc.training.learner import VIEW_TOLERANCE, build_schedule, view_images

Render = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Source:
    """Labelled tiles with their stain vectors, one array a store."""

    tiles: LabelledTiles
    stains: list[np.ndarray]

    def batches(self, config: TrainConfig) -> Iterator[tuple[TileBatch, Tensor]]:
        """A batch and its labels for every step: epochs of fresh permutations, their last incomplete batch dropped.

        Of a source smaller than a batch every epoch is one batch of all its tiles.
        """
        size = min(config.batch, len(self.tiles))
        epoch_steps = len(self.tiles) // size
        for step in range(config.steps):
            epoch, position = divmod(step, epoch_steps)
            order = np.random.default_rng([config.seed, epoch]).permutation(len(self.tiles))
            rows = order[position * size : (position + 1) * size]
            index, row = self.tiles.index[rows], self.tiles.row[rows]
            yield gather(self.tiles.stores, self.stains, index, row), torch.from_numpy(self.tiles.labels[rows])


def train_supervised(tiles: LabelledTiles, classes: int, out: Path, config: TrainConfig) -> list[float]:
    """Train encoder and a linear layer on labels by cross-entropy, classes weighted alike; publish ``out/encoder``.

    Every tile is seen in two views a step, as in training by views. Steps are fixed: nothing is chosen by looking at
    scores. A training that is cut off begins anew.

    Returns:
        The loss of every step.

    Raises:
        TrainingError: a loss is not finite.
    """
    device = resolve_device(config.device)
    precision = config.resolved(device).precision  # as in training by views
    if device.type == "cpu":
        keep_freed()
    px = tiles.stores[0].tile_px
    encoder = build_encoder(EncoderConfig(config.architecture), px, config.seed).to(device).train()
    width = int(getattr(encoder, "num_features"))  # noqa: B009  timm's networks have it, nn.Module does not
    head = seeded(lambda: nn.Linear(width, classes), config.seed).to(device)
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
    schedule = build_schedule(optimizer, config)
    counts = np.bincount(tiles.labels, minlength=classes)
    balance = torch.tensor(len(tiles) / (classes * np.maximum(counts, 1)), dtype=torch.float32, device=device)
    generator = torch.Generator(device).manual_seed(config.seed)
    stains = fill_untrusted([load_or_estimate(store, config.separation, device) for store in tiles.stores])
    losses: list[float] = []
    render = Checked(view_images, VIEW_TOLERANCE, compiled=config.compiles_views)
    for step, (batch, labels) in enumerate(_Source(tiles, stains).batches(config)):
        images = _augmented(batch, config, generator, render)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = head(encoder(images))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(device).repeat(2), balance)
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"loss {losses[-1]} at step {step + 1}", "a finite number", "Lower lr.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    mpp = float(np.mean([store.mpp.mean for store in tiles.stores]))
    with publishing(out, out / ENCODER_FOLDER) as draft:
        save_encoder(draft, encoder, EncoderMetadata(config.architecture, "none", mpp, config.steps))
    return losses


def _augmented(batch: TileBatch, config: TrainConfig, generator: torch.Generator, render: Render) -> Tensor:
    """Two views of each tile as the network takes them: all first ones, then all second ones."""
    tiles, stains = batch.tiles.to(generator.device), batch.stains.to(generator.device)
    drawn = draw_views(len(tiles), config.views, generator)
    return render(turned_planes(tiles, drawn), stains, drawn, config.views.mode)[0]
