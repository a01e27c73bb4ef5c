"""Tiles of one slide on disk: a sharded zarr v3 group, one tile a chunk, written once and never changed.

Arrays: ``tiles`` uint8 (N, px, px, 3), ``origins`` int32 (N, 2) as x, y of the top-left corner in level-0 pixels,
``tissue_fraction`` float32 (N,), ``valid`` uint8 (N,), see :class:`Validity`. Row-major over (y, x).

The first stores had their chunks in folders (``c/0/0/0/0``) and were compressed by Zstandard; both are read as well.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import imagecodecs
import numpy as np
import zarr
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from wsi_lmc.errors import StoreError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.shards import ShardError, by_shard, open_shard
from wsi_lmc.slide import ReadError, decode_jpeg
from wsi_lmc.threads import Pending, Threads
from wsi_lmc.units import NOMINAL, Mpp
from wsi_lmc.zarrio import (
    Attributes,
    open_sealed,
    read_array,
    register_jpeg,
)

SCHEMA = "wsi-lmc/tiles"
SCHEMA_VERSION = 1
_READ_TOGETHER = 16  # tiles of a shard, by one thread
TILES_PER_SHARD = 256

Codec = Literal["auto", "lossless", "jpeg"]
StoredCodec = Literal["kept", "lossless", "jpeg"]
CODECS: dict[StoredCodec, str] = {
    "kept": "the slide's own jpeg + crc32c",
    "lossless": "blosc lz4 + crc32c",
    "jpeg": "jpeg quality 95 4:4:4 + crc32c",
}
_FIRST_LOSSLESS = "zstd-1 + crc32c"  # until November 2026, before any release


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


def shard_name(number: int) -> str:
    """File of a store's ``tiles`` that holds a shard."""
    return f"c.{number}.0.0.0"


class TileStore:
    """Tiles of one slide, opened for reading. Cheap to open; pixels are read when asked for."""

    def __init__(self, path: Path, group: zarr.Group, attributes: Attributes) -> None:
        self.path = path
        self.attributes = attributes
        self._group = group
        tiles = cast("zarr.Array[Any]", group["tiles"])
        self._count = int(tiles.shape[0])
        self._key_of: Callable[[tuple[int, ...]], str] = tiles.metadata.encode_chunk_key

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

    @property
    def nominal(self) -> bool:
        """Whether the pixel size only stands in, because nobody knows the real one, for one image at least."""
        return NOMINAL in str(self.attributes["slide"].get("mpp_source", ""))

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

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Int64[np.ndarray, " n"], threads: Threads | None = None) -> UInt8[np.ndarray, "n h w 3"]:
        """Read tiles by row, in the order asked for; a row may occur more than once.

        Raises:
            StoreError: a chunk is damaged (its crc32c does not match) or gone.
        """
        return self.read_checked(rows, threads)[0]

    def read_checked(
        self, rows: Int64[np.ndarray, " n"], threads: Threads | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, " n"]]:
        """Read tiles as `read` does; also says which of them were damaged in the slide already, and are white.

        Only a store that keeps the slide's own JPEG bytes can hold such tiles without knowing.
        """
        tiles = np.empty((len(rows), self.tile_px, self.tile_px, 3), np.uint8)
        return tiles, self.begin_read(rows, tiles, threads or Threads()).result()

    def begin_read(
        self, rows: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n h w 3"], threads: Threads
    ) -> Pending[Bool[np.ndarray, " n"]]:
        """Begin to read tiles into ``out``; the result says which of them were damaged, see :meth:`read_checked`."""
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        damaged = np.zeros(len(rows), np.bool_)
        groups = [
            (number, positions[start : start + _READ_TOGETHER])
            for number, positions in by_shard(rows, TILES_PER_SHARD).items()
            for start in range(0, len(positions), _READ_TOGETHER)
        ]

        def serve(part: range) -> None:
            for number, positions in groups[part.start : part.stop]:
                damaged[positions] = self._read_group(number, rows, positions, out)

        return threads.begin(serve, len(groups), 1).then(lambda _: damaged)

    def _read_group(
        self,
        number: int,
        rows: Int64[np.ndarray, " n"],
        positions: Int64[np.ndarray, " m"],
        out: UInt8[np.ndarray, "n h w 3"],
    ) -> list[bool]:
        """Read some tiles of one shard; says which were damaged."""
        try:
            with closing(open_shard(self._shard(number), TILES_PER_SHARD)) as shard:
                if len(positions) == _READ_TOGETHER:
                    shard.expect_all()
                return [
                    not self._readable(shard.chunk(int(rows[position]) % TILES_PER_SHARD), out[position])
                    for position in positions.tolist()
                ]
        except (ShardError, ReadError) as error:
            first, last = rows[positions].min(), rows[positions].max()
            raise StoreError(
                f"{self.path.name}: tiles {first} to {last} cannot be read ({error})",
                "intact chunks",
                "Tile this slide again with --overwrite.",
            ) from error

    def _shard(self, number: int) -> Path:
        return self.path / "tiles" / self._key_of((number, 0, 0, 0))

    def _readable(self, chunk: UInt8[np.ndarray, " bytes"], tile: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Decode into ``tile``; False, and white, where the slide's own bytes were damaged."""
        try:
            self._decode(chunk, tile)
        except ReadError:
            if self.attributes["codec"] != CODECS["kept"]:
                raise
            tile[...] = 255
            return False
        return True

    def _decode(self, chunk: UInt8[np.ndarray, " bytes"], tile: UInt8[np.ndarray, "h w 3"]) -> None:
        codec = self.attributes["codec"]
        if codec not in (CODECS["lossless"], _FIRST_LOSSLESS):
            decode_jpeg(chunk, tile)
            return
        try:
            if codec == _FIRST_LOSSLESS:
                imagecodecs.zstd_decode(chunk, out=cast(Any, tile.reshape(-1)))
            else:
                imagecodecs.blosc_decode(chunk, numthreads=1, out=cast(Any, tile.reshape(-1)))
        except (RuntimeError, ValueError) as error:
            raise ReadError(str(error)) from error
