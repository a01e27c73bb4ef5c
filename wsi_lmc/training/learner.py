"""One training step: two stain views of each tile, their embeddings, the cross-correlation loss, one AdamW step.

Everything random in a step follows from (seed, step), so that a training that was cut off and resumed on the CPU gives
the same losses and the same weights, bit for bit.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from wsi_lmc.batches import TileBatch
from wsi_lmc.compiling import Checked, CheckedNetwork
from wsi_lmc.encoder import EncoderConfig, build_encoder, scale_input
from wsi_lmc.errors import TrainingError, UsageError
from wsi_lmc.loss import LossTerms, cross_correlation_loss, effective_rank, embedding_std
from wsi_lmc.memory import keep_freed, make_room, out_of_memory
from wsi_lmc.stain import Drawn, draw_views, render_views, turned_planes
from wsi_lmc.stain.views import ViewMode
from wsi_lmc.training.config import TrainConfig
from wsi_lmc.training.group import ALONE, Group
from wsi_lmc.training.microbatch import PairedBatch
from wsi_lmc.training.probe import KnnProbe
from wsi_lmc.training.projector import build_projector

_log = logging.getLogger(__name__)
_TRAIN, _HELD_OUT = 1, 2  # separate random streams
VIEW_TOLERANCE = 1e-3  # of a network's input, -1 to 1: an eighth of a grey level


class Learner:
    """Network, optimiser and schedule after ``step`` completed steps.

    ``whole`` is False only while a step is being applied: what is saved then could not be resumed exactly. ``micro`` is
    the number of tiles that are embedded together, halved whenever memory is short.
    """

    def __init__(self, config: TrainConfig, tile_px: int, group: Group = ALONE) -> None:
        self.config, self.group, self.device = config.resolved(group.device), group, group.device
        self.step, self.whole = 0, True
        if self.device.type == "cpu":
            keep_freed()
        self._share = group.share(config.batch)
        self._whole_share = len(range(config.batch)[self._share])
        self.micro = min(config.micro_batch or self._whole_share, self._whole_share)
        self.model = build_encoder(EncoderConfig(config.architecture), tile_px, config.seed).to(group.device)
        dtype = getattr(torch, self.config.precision)
        if dtype == torch.bfloat16 and self.device.type == "cpu":
            _unfuse_attention(self.model)
        self._gradient = _gradient_of(self.model)
        self.projector = self._build_projector()
        group.agree_on(self.model)
        weights = [*self.model.parameters(), *self.projector.parameters()]
        self.optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.schedule = build_schedule(self.optimizer, config)
        self._images = Checked(view_images, VIEW_TOLERANCE, compiled=config.compiles_views)
        self._network = CheckedNetwork(self.model, dtype, config.compiles_model_on(self.device))
        self._plain = CheckedNetwork(self.model, dtype, compiled=False)

    @property
    def compiled(self) -> str:
        """Whether the network runs "compiled" or "eager"; "undecided" before the first step."""
        return self._network.used

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs besides its configuration and its tiles."""
        return {
            "step": self.step,
            "micro_batch": self.micro if self.micro < self._whole_share else 0,
            "model": self.model.state_dict(),
            "projector": self.projector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.projector.load_state_dict(state.get("projector", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        if not self.config.micro_batch and state["micro_batch"]:  # memory was short; what is asked for goes first
            self.micro = min(self.micro, state["micro_batch"])

    def learn(self, batch: TileBatch, describe: bool) -> dict[str, float]:
        """Take one step and return its metrics; ``describe`` adds those that cost time.

        Raises:
            TrainingError: loss or gradient is not finite, or memory is too short for a single tile; the weights are as
                before the step.
        """
        pairs = self._pairs(batch, _TRAIN, self.step)
        embedded, clipped = self._fitting(pairs.embed)
        terms = self._loss_and(embedded.requires_grad_(), self.group.total)
        self.projector.zero_grad()
        terms.total.backward()
        self._fitting(lambda micro: self._propagate(pairs, embedded, micro))
        self.group.average(self._gradient)
        metrics = _numbers(
            _terms(terms) | {"gradient_norm": torch.linalg.vector_norm(self._gradient), "clipped_share": clipped}
        )
        metrics |= {"lr": float(self.schedule.get_last_lr()[0]), "micro_batch": float(self.micro)}
        self._stop_if_not_finite(metrics)
        self.whole = False
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.whole = True
        return metrics | _describe(embedded.chunk(2)[0]) if describe else metrics

    def evaluate(self, batches: Iterable[TileBatch], probe: KnnProbe | None = None) -> dict[str, float]:
        """Loss terms and spread over all ``batches`` taken together, with the same views at every call.

        With ``probe`` also how well it tells the tiles' labels from embeddings of the tiles themselves.
        """
        sides: list[tuple[Tensor, ...]] = []
        plain: list[Tensor] = []
        self.model.eval()
        self.projector.eval()
        with torch.inference_mode():
            for number, batch in enumerate(batches):
                embedded, _ = self._fitting(self._pairs(batch, _HELD_OUT, number).embed)
                sides.append(embedded.chunk(2))
                if probe is not None:
                    plain.append(self._fitting(lambda micro, tiles=batch.tiles: self._embed_plain(tiles, micro)))
            embedded = torch.cat([torch.cat(side) for side in zip(*sides, strict=True)])
            metrics = _numbers(_terms(self._loss_and(embedded))) | _describe(embedded.chunk(2)[0])
        self.model.train()
        self.projector.train()
        if probe is not None:
            metrics |= probe(torch.cat(plain))
        return {f"held_out_{name}": value for name, value in metrics.items()}

    def _loss_and(self, embedded: Tensor, total: Callable[[Tensor], Tensor] = ALONE.total) -> LossTerms:
        first, second = (self.projector(side) for side in embedded.chunk(2))
        config = self.config
        return cross_correlation_loss(first, second, config.off_diagonal_weight, total, config.spread_weight)

    def _build_projector(self) -> nn.Module:
        """The projector, or nothing in its place."""
        if not self.config.projector:
            return nn.Identity()
        if self.group.count > 1:
            raise UsageError(
                f"a projector and {self.group.count} processes",
                "one process, since the projector norms each batch by itself",
                "Leave --projector out, or train in one process.",
            )
        width = int(cast(Any, self.model).num_features)
        return build_projector(width, self.config.projector, self.config.seed).to(self.device)

    def _pairs(self, batch: TileBatch, stream: int, number: int) -> PairedBatch:
        """Both views of the batch's tiles, as drawn for this step or this held-out batch."""
        generator = _generator((self.config.seed, stream, number), self.device)
        tiles = batch.tiles.to(self.device, non_blocking=True)
        stains = batch.stains.to(self.device, non_blocking=True)
        training = stream == _TRAIN
        drawn = draw_views(self.config.batch if training else len(tiles), self.config.views, generator)
        if training:  # drawn for the whole batch, so that the number of processes changes nothing
            drawn = drawn.of(self._share)
        images, network = (self._images, self._network) if training else (view_images, self._plain)

        def render(part: slice) -> tuple[Tensor, Tensor]:
            some = drawn.of(part)
            rendered, clipped = images(turned_planes(tiles[part], some), stains[part], some, self.config.views.mode)
            return rendered, clipped

        return PairedBatch(network, render, len(tiles))

    def _propagate(self, pairs: PairedBatch, embedded: Tensor, micro: int) -> None:
        """Fill the weights' gradients, from zero at every attempt."""
        assert embedded.grad is not None  # noqa: S101  the loss has been propagated to it
        self._gradient.zero_()
        pairs.propagate(embedded.grad, micro)

    def _embed_plain(self, tiles: Tensor, micro: int) -> Tensor:
        parts = (tiles[start : start + micro].to(self.device) for start in range(0, len(tiles), micro))
        return torch.cat([self._plain(scale_input(part.permute(0, 3, 1, 2).float() / 255.0)) for part in parts])

    def _fitting[T](self, work: Callable[[int], T]) -> T:
        """Do ``work`` in micro-batches, and again in ever smaller ones where memory is short.

        Each process does so by itself: ``work`` waits for no other.
        """
        while True:
            try:
                return work(self.micro)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.micro == 1:
                    raise TrainingError(
                        f"out of memory on {self.device} at step {self.step + 1}, with one tile at a time",
                        "room for the network, its optimiser and two views of a tile",
                        "End other programs on it, or use a larger device; saved states are intact.",
                    ) from error
                said = str(error)
            # outside of the handler, which holds on to the failed attempt's memory
            self.micro = (self.micro + 1) // 2
            make_room(self.device, said)
            _log.warning(
                "out of memory at step %d: going on with %d tiles at a time; the loss is still the whole batch's",
                *(self.step + 1, self.micro),
            )

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


def _terms(terms: LossTerms) -> dict[str, Tensor]:
    named = {"loss": terms.total, "invariance": terms.invariance, "redundancy": terms.redundancy}
    return named | {"spread": terms.spread, "mean_diagonal": terms.mean_diagonal}


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """All values as numbers, fetched from the device at once."""
    return dict(zip(values, torch.stack(list(values.values())).detach().tolist(), strict=True))


def _gradient_of(model: nn.Module) -> Tensor:
    """One vector that all weights' gradients are parts of: one sum over processes, one norm, one zeroing."""
    weights = list(model.parameters())
    whole = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)
    for weight, part in zip(weights, whole.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = part.view_as(weight)
    return whole


def _unfuse_attention(model: nn.Module) -> None:
    """Plain matrix products for attention: torch's fused one takes twice as long in bfloat16 on the CPU (measured)."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused_attn = False  # pyright: ignore[reportAttributeAccessIssue]  read at every call


def _describe(embeddings: Tensor) -> dict[str, float]:
    embeddings = embeddings.detach()
    return {"std": float(embedding_std(embeddings)), "effective_rank": float(effective_rank(embeddings))}


def _generator(words: tuple[int, ...], device: torch.device) -> torch.Generator:
    """A generator whose seed mixes all ``words``; neighbouring words give unrelated streams."""
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))
