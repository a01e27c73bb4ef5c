"""Keywords about training, embedding and evaluation: the command line's flags of the same names.

See :mod:`wsi_lmc.api.settings`; apart from it, because the types named here need torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from wsi_lmc.api.settings import TileSettings
from wsi_lmc.backends import Backend
from wsi_lmc.encoder import Architecture
from wsi_lmc.normalisers import NormaliserName
from wsi_lmc.pooling import Pooling
from wsi_lmc.stain.views import ViewMode


class TrainSettings(TypedDict, total=False):
    """How an encoder is trained, see :class:`wsi_lmc.training.TrainConfig`."""

    steps: int
    batch: int
    micro_batch: int
    seed: int
    device: str
    architecture: Architecture
    mode: ViewMode
    scale_low: float
    scale_high: float
    scale_law: Literal["uniform", "log-uniform"]
    gamma: float
    white_point: float
    blur: float
    jpeg: int
    hed: float
    crop: float
    geometry: Literal["of-mode", "none", "same", "independent"]
    beta: float
    alpha: float
    centred: bool
    stride: int
    gate: bool
    off_diagonal_weight: float
    spread_weight: float
    projector: int
    lr: float
    final_lr: float
    weight_decay: float
    warmup_share: float
    anneal_share: float
    tiles_per_slide: int
    held_out_share: float
    held_out_tiles: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int
    prefetch: int
    precision: Literal["auto", "float32", "bfloat16"]
    compile_model: Literal["auto", "yes", "no"]
    compile_views: Literal["auto", "yes", "no"]


class EmbedSettings(TileSettings, total=False):
    """How tiles become features, see :class:`wsi_lmc.embedding.EmbedConfig`; those of tiles are for slides alone."""

    batch: int
    block: int
    dtype: Literal["float16", "float32"]
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    backend: Backend
    pooling: Pooling
    normalise: NormaliserName
    reference: str | None
    weights: str | None
    any_mpp: bool


class EvaluateSettings(TypedDict, total=False):
    """What is measured on which tiles: flags of ``wsi-lmc evaluate``.

    ``by``, ``label`` and ``group`` are columns of the manifest: what features should not show, what they should, and
    what stays on one side of a split. ``seen`` are checkpoint folders: slides that these were trained on count in the
    transfer and in pairs alone. ``k`` is how many neighbours count.
    """

    by: str
    label: str
    group: str
    classes: tuple[str, ...]
    source: str
    seen: str | Path | Sequence[str | Path]
    tiles_per_slide: int
    tiles_per_site: int
    k: int
    seed: int
