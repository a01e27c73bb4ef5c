"""Tiles to features: one loop over blocks of tiles, from a tile store or straight from a slide."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_doc import Doc
from jaxtyping import Float, UInt8

from wsi_lmc.backends import Backend
from wsi_lmc.encoder import Encoder, Precision, resolve_device
from wsi_lmc.errors import SlideError
from wsi_lmc.normalisers import Normaliser, NormaliserName
from wsi_lmc.pooling import Pooling
from wsi_lmc.threads import Pending, Threads, in_turn
from wsi_lmc.tilestore import TILES_PER_SHARD, TileStore, Validity

_MPP_TOLERANCE = 0.02

Block = UInt8[np.ndarray, "_ h w 3"]  # blocks differ in their number of tiles
Valid = UInt8[np.ndarray, " _"]


@dataclass(frozen=True)
class EmbedConfig:
    """How tiles become features."""

    batch: Annotated[int, Doc("Tiles that go through the encoder together.")] = 64
    dtype: Annotated[Literal["float16", "float32"], Doc("How features are stored.")] = "float32"
    device: Annotated[str, Doc("auto (CUDA where there is one), cpu, cuda or cuda:N.")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Doc(
            "Of the encoder's computation; auto: bfloat16 on a GPU that computes in it, else float32. On a CPU "
            "bfloat16 is faster where it has avx512_bf16 or amx_bf16."
        ),
    ] = "auto"
    backend: Annotated[
        Backend,
        Doc(
            "What computes features: torch, or OpenVINO on the CPU, which needs pip install 'wsi-lmc[openvino]'; it is "
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
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float32"


def store_blocks(store: TileStore, threads: Threads) -> Iterator[tuple[Block, Valid]]:
    """A tile store's pixels in order, a shard at a time, and the :class:`Validity` of each tile.

    With several threads the next shard is read meanwhile. The pixels' memory is used again for the next block but one.
    """
    ahead = int(threads.count > 1)
    starts = range(0, len(store), TILES_PER_SHARD)
    shape = (min(TILES_PER_SHARD, len(store)), store.tile_px, store.tile_px, 3)
    buffers = [np.empty(shape, np.uint8) for _ in range(min(2 + ahead, len(starts)))]

    def begin(number: int) -> Pending[tuple[Block, Valid]]:
        rows = np.arange(starts[number], min(starts[number] + TILES_PER_SHARD, len(store)))
        pixels = buffers[number % len(buffers)][: len(rows)]
        unreadable = np.uint8(Validity.UNREADABLE)
        reading = store.begin_read(rows, pixels, threads)
        return reading.then(lambda damaged: (pixels, np.where(damaged, unreadable, store.valid[rows])))

    return in_turn(begin, len(starts), ahead)


def embed_blocks(
    encoder: Encoder,
    blocks: Iterable[tuple[Block, Valid]],
    count: int,
    config: EmbedConfig,
    normalise: Normaliser | None = None,
) -> tuple[Float[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Features of ``count`` tiles that come in blocks, in their order, as ``config.dtype``; and their validity.

    ``normalise`` changes tiles before the encoder sees them.

    Batches run over the borders of blocks, so a store and the slide it came from give the same batches and the same
    bytes, however each of them is read.
    """
    features = np.empty((count, encoder.dim), np.dtype(config.dtype))
    valid: list[Valid] = [np.empty(0, np.uint8)]
    row = 0
    for batch in _batches(blocks, config.batch, valid):
        tiles = torch.from_numpy(batch)
        part = encoder.embed(tiles if normalise is None else normalise(tiles.to(encoder.device)))
        features[row : row + len(part)] = part.cpu().numpy()
        row += len(part)
    return features, np.concatenate(valid)


def _batches(blocks: Iterable[tuple[Block, Valid]], size: int, valid: list[Valid]) -> Iterator[Block]:
    """The tiles of blocks, ``size`` at a time, in memory that is used again; what is said of them goes to ``valid``."""
    batch: Block = np.empty((0, 0, 0, 3), np.uint8)
    filled = 0
    for block, block_valid in blocks:
        valid.append(block_valid)
        if batch.shape[1:] != block.shape[1:]:
            batch = np.empty((size, *block.shape[1:]), np.uint8)
        start = 0
        while start < len(block):
            taken = min(size - filled, len(block) - start)
            batch[filled : filled + taken] = block[start : start + taken]
            filled, start = filled + taken, start + taken
            if filled == size:
                yield batch
                filled = 0
    if filled:
        yield batch[:filled]


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
