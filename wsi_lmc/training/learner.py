"""One training step: two stain views of each tile, their embeddings, the cross-correlation loss, one AdamW step.

Everything random in a step follows from (seed, step), so that a training that was cut off and resumed on the CPU gives
the same losses and the same weights, bit for bit.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from wsi_lmc.batches import TileBatch
from wsi_lmc.compiling import Checked
from wsi_lmc.encoder import EncoderConfig, build_encoder, scale_input
from wsi_lmc.errors import TrainingError
from wsi_lmc.loss import LossTerms, cross_correlation_loss, effective_rank, embedding_std
from wsi_lmc.stain import Drawn, draw_views, render_views, turned_planes
from wsi_lmc.stain.views import ViewMode
from wsi_lmc.training.config import TrainConfig
from wsi_lmc.training.group import ALONE, Group

_TRAIN, _HELD_OUT = 1, 2  # separate random streams
_VIEW_TOLERANCE = 1e-3  # of a network's input, -1 to 1: an eighth of a grey level


class Learner:
    """Network, optimiser and schedule after ``step`` completed steps.

    ``whole`` is False only while a step is being applied: what is saved then could not be resumed exactly.
    """

    def __init__(self, config: TrainConfig, tile_px: int, group: Group = ALONE) -> None:
        self.config, self.group, self.device, self.step, self.whole = config, group, group.device, 0, True
        self.model = build_encoder(EncoderConfig(config.architecture), tile_px, config.seed).to(group.device)
        self._network = group.wrap(self.model)
        weights = self.model.parameters()
        self.optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.schedule = build_schedule(self.optimizer, config)
        self._images = Checked(view_images, _VIEW_TOLERANCE, compiled=config.compiles_views)

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs besides its configuration and its tiles."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]

    def learn(self, batch: TileBatch, describe: bool) -> dict[str, float]:
        """Take one step and return its metrics; ``describe`` adds those that cost time.

        Raises:
            TrainingError: loss or gradient is not finite, or memory is short; the weights are as before the step.
        """
        try:
            first, second, clipped = self._embed_views(batch, _TRAIN, self.step)
            terms = cross_correlation_loss(first, second, self.config.off_diagonal_weight, self.group.total)
            self.optimizer.zero_grad(set_to_none=True)
            terms.total.backward()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory on {self.device} at step {self.step + 1}",
                f"room for {2 * self.config.batch} views",
                "Lower batch (it changes the loss, so train anew), or use a larger device.",
            ) from error
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        metrics = _measure(terms) | {
            "gradient_norm": torch.nn.utils.get_total_norm(gradients).item(),
            "lr": float(self.schedule.get_last_lr()[0]),
            "clipped_share": clipped,
        }
        self._stop_if_not_finite(metrics)
        self.whole = False
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.whole = True
        return metrics | _describe(first) if describe else metrics

    def evaluate(self, batches: Iterable[TileBatch]) -> dict[str, float]:
        """Loss terms and spread over all ``batches`` taken together, with the same views at every call."""
        pairs = []
        self.model.eval()
        with torch.inference_mode():
            for number, batch in enumerate(batches):
                pairs.append(self._embed_views(batch, _HELD_OUT, number)[:2])
            first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
            terms = cross_correlation_loss(first, second, self.config.off_diagonal_weight)
            metrics = _measure(terms) | _describe(first)
        self.model.train()
        return {f"held_out_{name}": value for name, value in metrics.items()}

    def _embed_views(self, batch: TileBatch, stream: int, number: int) -> tuple[Tensor, Tensor, float]:
        """Float32 embeddings (b, d) of two views of each tile, and the share of values clipped in making them."""
        generator = _generator((self.config.seed, stream, number), self.device)
        tiles = batch.tiles.to(self.device, non_blocking=True)
        stains = batch.stains.to(self.device, non_blocking=True)
        training = stream == _TRAIN
        drawn = draw_views(self.config.batch if training else len(tiles), self.config.views, generator)
        if training:  # drawn for the whole batch, so that the number of processes changes nothing
            drawn = drawn.of(self.group.share(self.config.batch))
        render, network = (self._images, self._network) if training else (view_images, self.model)
        images, clipped = render(turned_planes(tiles, drawn), stains, drawn, self.config.views.mode)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16_on(self.device)):
            first, second = network(images).chunk(2)
        return first.float(), second.float(), float(clipped)

    def _stop_if_not_finite(self, metrics: dict[str, float]) -> None:
        for name in ("loss", "gradient_norm"):
            if not np.isfinite(metrics[name]):
                raise TrainingError(
                    f"{name} {metrics[name]} at step {self.step + 1}",
                    "a finite number",
                    "Saved states are intact: look at this step's tiles, or train anew with a lower lr.",
                )


def view_images(planes: Tensor, stains: Tensor, drawn: Drawn, mode: ViewMode) -> tuple[Tensor, Tensor]:
    """The network's input (2b, 3, h, w): first views, then second ones; and the share of values clipped in them."""
    views = render_views(planes, stains, drawn, mode)
    return scale_input(torch.cat([views.a, views.b])), views.clipped_share


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> LRScheduler:
    """Linear warm-up, constant, cosine down to ``final_lr``, in steps; phases without a step are left out.

    Step i of w warm-up steps (from 0) has (i + 1) / (w + 1) of the full rate; the first step after it has all of it.
    """
    warmup, anneal = config.warmup_steps, config.anneal_steps
    constant = config.steps - warmup - anneal
    phases: list[tuple[int, LRScheduler]] = []
    if warmup:
        phases.append((warmup, LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)))
    if constant or not anneal:
        phases.append((constant, ConstantLR(optimizer, factor=1.0)))
    if anneal:
        phases.append((anneal, CosineAnnealingLR(optimizer, T_max=anneal, eta_min=config.final_lr)))
    ends = np.cumsum([length for length, _ in phases]).tolist()
    return SequentialLR(optimizer, [schedule for _, schedule in phases], milestones=ends[:-1])


def _measure(terms: LossTerms) -> dict[str, float]:
    """The loss and its parts as numbers, fetched from the device at once."""
    names = {"loss": terms.total, "invariance": terms.invariance, "redundancy": terms.redundancy}
    names["mean_diagonal"] = terms.mean_diagonal
    return dict(zip(names, torch.stack(list(names.values())).detach().tolist(), strict=True))


def _describe(embeddings: Tensor) -> dict[str, float]:
    embeddings = embeddings.detach()
    return {"std": float(embedding_std(embeddings)), "effective_rank": float(effective_rank(embeddings))}


def _generator(words: tuple[int, ...], device: torch.device) -> torch.Generator:
    """A generator whose seed mixes all ``words``; neighbouring words give unrelated streams."""
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))
