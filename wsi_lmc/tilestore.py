"""Tiles of one slide on disk: a sharded zarr v3 group, one tile a chunk, written once and never changed.

Arrays: ``tiles`` uint8 (N, px, px, 3), ``origins`` int32 (N, 2) as x, y of the top-left corner in level-0 pixels,
``tissue_fraction`` float32 (N,), ``valid`` uint8 (N,), see :class:`Validity`. Row-major over (y, x).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from imagecodecs.zarr import Jpeg
from jaxtyping import Float32, Int32, Int64, UInt8
from zarr.codecs import Crc32cCodec

from wsi_lmc.errors import StoreError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.units import Mpp
from wsi_lmc.zarrio import (
    Attributes,
    create_group,
    lossless_codecs,
    open_array,
    open_sealed,
    read_array,
    register_jpeg,
    seal,
    write_array,
)

SCHEMA = "wsi-lmc/tiles"
SCHEMA_VERSION = 1
TILES_PER_SHARD = 256

Codec = Literal["lossless", "jpeg"]


class Validity(IntEnum):
    """What happened to a tile's pixels."""

    OK = 0
    PADDED = 1  # reaches beyond the slide; the rest is background
    COMPOSITED = 2  # partly transparent in the slide; composited on the background colour
    UNREADABLE = 3  # could not be decoded; all pixels are background


@dataclass(frozen=True)
class TileRows:
    """What is known of each tile beside its pixels; all arrays have N rows in the store's order."""

    origins: Int32[np.ndarray, "n 2"]
    tissue_fraction: Float32[np.ndarray, " n"]
    valid: UInt8[np.ndarray, " n"]


class TileStoreWriter:
    """Writes one store, a whole shard at a time, and seals it with attributes and checksums."""

    def __init__(self, path: Path, count: int, tile_px: int, codec: Codec) -> None:
        register_jpeg()
        self._path = path
        self._group = create_group(path)
        self._codec: Codec = codec
        jpeg = codec == "jpeg"
        self._tiles = self._group.create_array(
            "tiles",
            shape=(count, tile_px, tile_px, 3),
            dtype=np.uint8,
            chunks=(1, tile_px, tile_px, 3),
            shards=(TILES_PER_SHARD, tile_px, tile_px, 3),
            serializer=Jpeg(level=95, subsampling="444") if jpeg else "auto",
            compressors=[Crc32cCodec()] if jpeg else lossless_codecs(),
            filters=None,
            fill_value=0,
            config={"write_empty_chunks": True},  # a black tile is data, not a hole
        )

    def write(self, blocks: Iterable[UInt8[np.ndarray, "tile h w 3"]]) -> None:
        """Write consecutive blocks of at most ``TILES_PER_SHARD`` tiles; all but the last must be full."""
        start = 0
        for block in blocks:
            self._tiles[start : start + len(block)] = block
            start += len(block)

    def close(self, rows: TileRows, attributes: Attributes) -> None:
        """Add the per-tile arrays, then the attributes with every array's SHA-256."""
        write_array(self._group, "origins", rows.origins)
        write_array(self._group, "tissue_fraction", rows.tissue_fraction)
        write_array(self._group, "valid", rows.valid)
        codec = {"lossless": "zstd-1 + crc32c", "jpeg": "jpeg quality 95 4:4:4 + crc32c"}[self._codec]
        header = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "codec": codec}
        seal(self._path, {**header, **attributes})


class TileStore:
    """Tiles of one slide, opened for reading. Cheap to open; pixels are read when asked for."""

    def __init__(self, path: Path, group: zarr.Group, attributes: Attributes) -> None:
        self.path = path
        self.attributes = attributes
        self._group = group

    @classmethod
    def open(cls, path: Path) -> "TileStore":
        """Open a published store.

        Raises:
            StoreError: nothing there, another schema or version, or an array is missing.
        """
        register_jpeg()
        group, attributes = open_sealed(path, SCHEMA, SCHEMA_VERSION, ("tiles", "origins", "tissue_fraction", "valid"))
        return cls(path, group, attributes)

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return str(self.attributes["slide"]["id"])

    @property
    def tile_px(self) -> int:
        """Side of a tile, in target pixels."""
        return int(self.attributes["tile"]["px"])

    @property
    def mpp(self) -> Mpp:
        """Effective microns per target pixel."""
        x, y = self.attributes["tile"]["effective_mpp"]
        return Mpp(x, y)

    @cached_property
    def fingerprint(self) -> str:
        """Of the slide, the configuration and every stored byte."""
        keys = ("slide_fingerprint", "config_fingerprint", "sha256")
        return fingerprint({key: self.attributes[key] for key in keys})

    @cached_property
    def origins(self) -> Int32[np.ndarray, "n 2"]:
        """x, y of each tile's top-left corner in level-0 pixels."""
        return read_array(self._group, "origins")

    @cached_property
    def tissue_fraction(self) -> Float32[np.ndarray, " n"]:
        """Share of each tile's area in the tissue mask, 0 to 1."""
        return read_array(self._group, "tissue_fraction")

    @cached_property
    def valid(self) -> UInt8[np.ndarray, " n"]:
        """A :class:`Validity` for each tile."""
        return read_array(self._group, "valid")

    @cached_property
    def _pixels(self) -> zarr.Array[Any]:
        return open_array(self._group, "tiles")

    def __len__(self) -> int:
        return int(self._pixels.shape[0])

    def read(self, rows: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Read tiles by row, in the order asked for; a row may occur more than once.

        Raises:
            StoreError: a chunk is damaged (its crc32c does not match) or gone.
        """
        if len(rows) == 0:
            return np.empty((0, self.tile_px, self.tile_px, 3), np.uint8)
        unique, back = np.unique(rows, return_inverse=True)
        contiguous = int(unique[-1]) - int(unique[0]) + 1 == len(unique)
        try:
            box = slice(int(unique[0]), int(unique[-1]) + 1)
            tiles = self._pixels[box] if contiguous else self._pixels.oindex[unique]
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{self.path.name}: tiles {unique[0]} to {unique[-1]} cannot be read ({error})",
                "intact chunks",
                "Tile this slide again with --overwrite.",
            ) from error
        return np.asarray(tiles)[back]
