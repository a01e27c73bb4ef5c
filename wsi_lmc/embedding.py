"""How tiles become features, and the blocks of tiles that a store gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_doc import Doc

from wsi_lmc.backends import Backend
from wsi_lmc.encoder import Encoder, Precision, computes_bfloat16, resolve_device
from wsi_lmc.engine import Block, Valid
from wsi_lmc.errors import SlideError, UsageError
from wsi_lmc.normalisers import NormaliserName
from wsi_lmc.pooling import Pooling
from wsi_lmc.threads import Pending, Threads, in_turn
from wsi_lmc.tilestore import TILES_PER_SHARD, TileStore, Validity

_MPP_TOLERANCE = 0.02


@dataclass(frozen=True)
class EmbedConfig:
    """How tiles become features."""

    batch: Annotated[
        int, Doc("Tiles that go through the encoder together; 0: 256 on a GPU, 16 on a CPU, 4 by OpenVINO.")
    ] = 0
    block: Annotated[
        int, Doc("Tiles of a slide that are done, and kept, at a time: what a worker that dies has to do again.")
    ] = 4096
    dtype: Annotated[Literal["float16", "float32"], Doc("How features are stored.")] = "float32"
    device: Annotated[str, Doc("auto (CUDA where there is one), cpu, cuda or cuda:N.")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Doc(
            "Of the encoder's computation; auto: bfloat16 where the GPU or the CPU has instructions for it, twice as "
            "fast, else float32."
        ),
    ] = "auto"
    backend: Annotated[
        Backend,
        Doc(
            "What computes features: torch, or OpenVINO on the CPU (the package's extra openvino); it is "
            "compared with torch on the first tiles and used only where it agrees."
        ),
    ] = "torch"
    pooling: Annotated[
        Pooling,
        Doc("auto: the encoder's own feature, or class token and mean patch token together for Virchow, as published."),
    ] = "auto"
    normalise: Annotated[
        NormaliserName, Doc("Stain normalisation before the encoder, to compare with; LMC encoders need none.")
    ] = "none"
    reference: Annotated[str | None, Doc("Image of the look wanted (reinhard, macenko, stainfuser).")] = None
    weights: Annotated[
        str | None, Doc("The normaliser's weights: a file (stainnet, staingan), a folder (stainfuser).")
    ] = None
    any_mpp: Annotated[bool, Doc("Embed tiles of another mpp than the encoder was trained at.")] = False

    def __post_init__(self) -> None:
        if self.batch < 0 or self.block < 1:
            found = f"batch {self.batch}, block {self.block}"
            raise UsageError(found, "a batch of 0 (by device) or more, a block of 1 or more", "Correct them.")

    def device_here(self) -> torch.device:
        """The device of this machine that is used; OpenVINO's is the CPU.

        Raises:
            UsageError: no such device here.
        """
        return resolve_device("cpu" if self.backend == "openvino" and self.device == "auto" else self.device)

    def precision_on(self, device: torch.device) -> Precision:
        """The precision that is used on ``device``: what is recorded, and what features are known by."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if computes_bfloat16(device) else "float32"

    def batch_on(self, device: torch.device) -> int:
        """Tiles in a batch on ``device``."""
        return self.batch or (256 if device.type == "cuda" else 4 if self.backend == "openvino" else 16)


def store_blocks(store: TileStore, rows: range, threads: Threads) -> Iterator[tuple[Block, Valid]]:
    """Some rows of a tile store in order, a shard at a time: pixels, and the :class:`Validity` of each tile.

    With several threads the next shard is read meanwhile. The pixels' memory is used again for the next block but one.
    """
    ahead = int(threads.count > 1)
    starts = rows[::TILES_PER_SHARD]
    shape = (min(TILES_PER_SHARD, len(rows)), store.tile_px, store.tile_px, 3)
    buffers = [np.empty(shape, np.uint8) for _ in range(min(2 + ahead, len(starts)))]

    def begin(number: int) -> Pending[tuple[Block, Valid]]:
        own = np.arange(starts[number], min(starts[number] + TILES_PER_SHARD, rows.stop))
        pixels = buffers[number % len(buffers)][: len(own)]
        unreadable = np.uint8(Validity.UNREADABLE)
        reading = store.begin_read(own, pixels, threads)
        return reading.then(lambda damaged: (pixels, np.where(damaged, unreadable, store.valid[own])))

    return in_turn(begin, len(starts), ahead)


def check_mpp(encoder: Encoder, tile_mpp: float, config: EmbedConfig) -> None:
    """Refuse tiles of another scale than the encoder knows.

    Raises:
        SlideError: ``mpp_mismatch`` where they differ by more than 2 % and ``config.any_mpp`` is not set.
    """
    trained = encoder.trained_mpp
    if trained is None or config.any_mpp or abs(tile_mpp / trained - 1.0) <= _MPP_TOLERANCE:
        return
    raise SlideError(
        "mpp_mismatch",
        f"tiles of {tile_mpp:.4g} um/px for an encoder trained at {trained:.4g}",
        "agreement within 2 %",
        f"Tile with --tile-mpp {trained:.3g}, or pass --any-mpp if this is meant.",
    )
