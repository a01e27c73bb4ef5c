"""Tiles to features: one loop over blocks of tiles, from a tile store or straight from a slide."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_doc import Doc
from jaxtyping import Float, UInt8

from wsi_lmc.encoder import Encoder
from wsi_lmc.errors import SlideError
from wsi_lmc.normalisers import Normaliser, NormaliserName
from wsi_lmc.pooling import Pooling
from wsi_lmc.threads import Threads
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
    bf16: Annotated[bool, Doc("Run the encoder in bfloat16 on CUDA.")] = True
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


def store_blocks(store: TileStore, threads: Threads) -> Iterator[tuple[Block, Valid]]:
    """A tile store's pixels in order, a shard at a time, and the :class:`Validity` of each tile."""
    for start in range(0, len(store), TILES_PER_SHARD):
        rows = np.arange(start, min(start + TILES_PER_SHARD, len(store)))
        pixels, damaged = store.read_checked(rows, threads)
        yield pixels, np.where(damaged, np.uint8(Validity.UNREADABLE), store.valid[rows])


def embed_blocks(
    encoder: Encoder,
    blocks: Iterable[tuple[Block, Valid]],
    count: int,
    config: EmbedConfig,
    normalise: Normaliser | None = None,
) -> tuple[Float[np.ndarray, "n d"], UInt8[np.ndarray, " n"]]:
    """Features of ``count`` tiles that come in blocks, in their order, as ``config.dtype``; and their validity.

    ``normalise`` changes tiles before the encoder sees them.

    Batches are cut within a block, so a store and the slide it came from give the same batches and the same bytes.
    """
    features = np.empty((count, encoder.dim), np.dtype(config.dtype))
    valid = np.empty(count, np.uint8)
    row = 0
    for block, block_valid in blocks:
        valid[row : row + len(block)] = block_valid
        for start in range(0, len(block), config.batch):
            tiles = torch.from_numpy(block[start : start + config.batch])
            part = encoder.embed(tiles if normalise is None else normalise(tiles.to(encoder.device)))
            features[row : row + len(part)] = part.cpu().numpy()
            row += len(part)
    return features, valid


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
