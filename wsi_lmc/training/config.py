"""How an encoder is trained: one flat set of settings, the paper's values where the paper states them."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from annotated_doc import Doc

from wsi_lmc.encoder import Architecture, computes_bfloat16
from wsi_lmc.errors import UsageError
from wsi_lmc.stain import SeparationConfig, ViewConfig

MAY_CHANGE = frozenset({"device", "prefetch", "checkpoint_every", "keep", "micro_batch"})
"""Settings in which a resumed training may differ: none of them changes more than the rounding of what is computed."""


@dataclass(frozen=True)
class TrainConfig:
    """How an encoder is trained."""

    steps: Annotated[int, Doc("Optimiser steps; the learning-rate schedule is stretched over them.")] = 10_000
    batch: Annotated[int, Doc("Tiles (pairs of views) per step; the loss itself depends on this number.")] = 32
    micro_batch: Annotated[
        int,
        Doc("Tiles in memory at a time, same loss, a third slower; 0: the batch, halved where memory is short."),
    ] = 0
    seed: Annotated[int, Doc("Decides the initial weights, the order of tiles and all views.")] = 0
    device: Annotated[str, Doc("auto (CUDA where there is one), cpu, cuda or cuda:N.")] = "auto"
    architecture: Annotated[
        Architecture,
        Doc("vit-tiny is the paper's network (192 features); vit-demo and vit-mini (64) train on a laptop in minutes."),
    ] = "vit-tiny"
    views: ViewConfig = field(default_factory=ViewConfig)
    separation: SeparationConfig = field(default_factory=SeparationConfig)
    off_diagonal_weight: Annotated[
        float, Doc("Weight (lambda) of the redundancy term: more spreads the features, less ties the views closer.")
    ] = 0.005
    spread_weight: Annotated[
        float,
        Doc(
            "Weight of a term that keeps features (with a projector, what it makes of them) from becoming all but "
            "constant, by deviations below 0.5; 0: none."
        ),
    ] = 0.0
    projector: Annotated[
        int, Doc("Width of a projector of two layers between embedding and loss; 0: none, as in the paper.")
    ] = 0
    lr: Annotated[float, Doc("Learning rate of the constant phase.")] = 1e-4
    final_lr: Annotated[float, Doc("Learning rate that the last phase falls to.")] = 1e-7
    weight_decay: Annotated[float, Doc("AdamW's weight decay, on every weight.")] = 0.01
    warmup_share: Annotated[float, Doc("Share of the steps in which the learning rate rises linearly.")] = 0.05
    anneal_share: Annotated[float, Doc("Share of the steps, at the end, in which it falls along a cosine.")] = 0.2
    tiles_per_slide: Annotated[
        int, Doc("Most tiles of one slide in an epoch, drawn anew each epoch, so that none dominates; 0 takes all.")
    ] = 0
    held_out_share: Annotated[
        float, Doc("Share of the slides (where slides are few: of the tiles) kept for evaluation, never trained on.")
    ] = 0.05
    held_out_tiles: Annotated[int, Doc("Most held-out tiles evaluated; under about 2,000 the terms are biased.")] = 2048
    log_every: Annotated[int, Doc("Steps between two rows of metrics.jsonl.")] = 10
    evaluate_every: Annotated[int, Doc("Steps between two evaluations on the held-out tiles.")] = 500
    checkpoint_every: Annotated[int, Doc("Steps between two saved states: the most that a crash loses.")] = 500
    keep: Annotated[int, Doc("Saved states that stay on disk; two allow for one being damaged.")] = 2
    prefetch: Annotated[int, Doc("Batches read ahead in threads; 0 reads when needed. Never changes a result.")] = 2
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Doc(
            "Of the encoder's computation, weights and loss stay float32; auto: bfloat16 where the GPU, or the CPU "
            "(avx512_bf16, amx_bf16), computes in it, else float32."
        ),
    ] = "auto"
    compile_model: Annotated[
        Literal["auto", "yes", "no"],
        Doc("Compile the network, and use that where it proves equal; auto: on CUDA, from 2,000 steps on."),
    ] = "auto"
    compile_views: Annotated[
        Literal["auto", "yes", "no"],
        Doc("Compile the making of views, about three times as fast after half a minute; auto: from 500 steps on."),
    ] = "auto"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} = {getattr(self, name)}", f"at least {least}", "Correct it.")
        for name in ("warmup_share", "anneal_share", "held_out_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}", "a share from 0 to below 1", "Correct it.")
        if self.warmup_share + self.anneal_share > 1:
            together = self.warmup_share + self.anneal_share
            raise UsageError(
                f"warmup_share and anneal_share of together {together:g}", "at most 1", "Lower one of them."
            )

    @property
    def compiles_views(self) -> bool:
        """Whether views are to be compiled."""
        return self.compile_views == "yes" or (self.compile_views == "auto" and self.steps >= _WORTH_COMPILING)

    def compiles_model_on(self, device: torch.device) -> bool:
        """Whether the network is to be compiled."""
        worth = device.type == "cuda" and self.steps >= _WORTH_COMPILING_MODEL
        return self.compile_model == "yes" or (self.compile_model == "auto" and worth)

    def resolved(self, device: torch.device) -> "TrainConfig":
        """The same with the precision that is used on ``device``: what is recorded, and compared when resuming."""
        if self.precision != "auto":
            return self
        return replace(self, precision="bfloat16" if computes_bfloat16(device) else "float32")

    @property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return round(self.warmup_share * self.steps)

    @property
    def anneal_steps(self) -> int:
        """Steps in which the learning rate falls."""
        return round(self.anneal_share * self.steps)


_WORTH_COMPILING = 500  # steps
_WORTH_COMPILING_MODEL = 2000
_LEAST = {
    "steps": 1,
    "batch": 2,
    "micro_batch": 0,
    "seed": 0,
    "tiles_per_slide": 0,
    "held_out_tiles": 2,
    "log_every": 1,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "keep": 1,
    "prefetch": 0,
    "lr": 0.0,
    "final_lr": 0.0,
    "weight_decay": 0.0,
    "off_diagonal_weight": 0.0,
    "spread_weight": 0.0,
    "projector": 0,
}
