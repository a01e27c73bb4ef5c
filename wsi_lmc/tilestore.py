"""Tiles of one slide on disk: a sharded zarr v3 group, one tile a chunk, written once and never changed.

Arrays: ``tiles`` uint8 (N, px, px, 3), ``origins`` int32 (N, 2) as x, y of the top-left corner in level-0 pixels,
``tissue_fraction`` float32 (N,), ``valid`` uint8 (N,), see :class:`Validity`. Row-major over (y, x).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import imagecodecs
import numpy as np
import zarr
from imagecodecs.zarr import Jpeg
from jaxtyping import Bool, Float32, Int32, Int64, UInt8
from zarr.codecs import BloscCodec, Crc32cCodec

from wsi_lmc.errors import StoreError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.shards import CRC_BYTES, Shard, ShardError, by_shard, crc32c, open_shard, with_checksum, write_shard
from wsi_lmc.slide import ReadError, decode_jpeg, encode_jpeg
from wsi_lmc.threads import Pending, Threads
from wsi_lmc.units import Mpp
from wsi_lmc.zarrio import (
    Attributes,
    create_group,
    open_sealed,
    read_array,
    register_jpeg,
    seal,
    write_array,
)

SCHEMA = "wsi-lmc/tiles"
SCHEMA_VERSION = 1
TILES_PER_SHARD = 256

Codec = Literal["auto", "lossless", "jpeg"]
StoredCodec = Literal["kept", "lossless", "jpeg"]
CODECS: dict[StoredCodec, str] = {
    "kept": "the slide's own jpeg + crc32c",
    "lossless": "blosc lz4 + crc32c",
    "jpeg": "jpeg quality 95 4:4:4 + crc32c",
}
_BLOSC_OVERHEAD = 16
_Chunk = bytes | UInt8[np.ndarray, " _"]
_BLOSC = BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1)
_JPEG: dict[StoredCodec, Jpeg] = {"kept": Jpeg(), "jpeg": Jpeg(level=95, subsampling="444")}


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
    """Writes one store, tile after tile, and seals it with attributes and checksums; a context manager.

    Shards go to the disk in a thread of their own, so that waiting for it does not stop the decoding.
    """

    def __init__(self, path: Path, count: int, tile_px: int, codec: StoredCodec, threads: Threads) -> None:
        register_jpeg()
        self._path, self._group, self._threads = path, create_group(path), threads
        self._codec: StoredCodec = codec
        self._shards: dict[str, bytes] = {}
        self._chunks: list[_Chunk] = []
        self._encoding: Pending[list[_Chunk]] | None = None
        self._writing: tuple[str, Future[bytes]] | None = None
        self._disk = ThreadPoolExecutor(1, "disk")
        room = tile_px * tile_px * 3 + _BLOSC_OVERHEAD + CRC_BYTES if codec == "lossless" else 0
        slots = min(count, TILES_PER_SHARD)
        self._buffers = [np.empty((slots, room), np.uint8) for _ in range(2)]  # one is filled, one is being written
        jpeg = codec != "lossless"
        self._group.create_array(
            "tiles",
            shape=(count, tile_px, tile_px, 3),
            dtype=np.uint8,
            chunks=(1, tile_px, tile_px, 3),
            shards=(TILES_PER_SHARD, tile_px, tile_px, 3),
            serializer=_JPEG[codec] if codec != "lossless" else "auto",
            compressors=[Crc32cCodec()] if jpeg else [_BLOSC, Crc32cCodec()],
            filters=None,
            fill_value=0,
        )

    def write(self, tiles: UInt8[np.ndarray, "tile h w 3"]) -> None:
        """Write the next tiles, any number. They must stay as they are until the next call returns."""
        for start, stop in self._pieces(len(tiles)):
            part = tiles[start:stop]
            self._encoding = self._threads.begin(lambda rows, part=part: self._encode(part, rows), len(part))

    def write_encoded(self, chunks: Sequence[bytes]) -> None:
        """Write the next tiles, already compressed as the store's codec says."""
        for start, stop in self._pieces(len(chunks)):
            self._extend([with_checksum(chunk) for chunk in chunks[start:stop]])

    def close(self, rows: TileRows, attributes: Attributes) -> None:
        """Add the per-tile arrays, then the attributes with every array's SHA-256."""
        self._take_encoded()
        self._flush()
        self._finish()
        write_array(self._group, "origins", rows.origins)
        write_array(self._group, "tissue_fraction", rows.tissue_fraction)
        write_array(self._group, "valid", rows.valid)
        header = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "codec": CODECS[self._codec]}
        seal(self._path, {**header, **attributes}, {"tiles": self._shards})

    def __enter__(self) -> "TileStoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.shutdown()

    def _pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Parts of ``count`` tiles that each fit into the shard that is open when it is their turn."""
        start = 0
        while start < count:
            self._take_encoded()
            stop = min(count, start + TILES_PER_SHARD - len(self._chunks))
            yield start, stop
            start = stop

    def _take_encoded(self) -> None:
        """Wait for the tiles that are being compressed; the threads may well be decoding the next ones meanwhile."""
        if self._encoding is not None:
            encoding, self._encoding = self._encoding, None
            self._extend([chunk for chunks in encoding.result() for chunk in chunks])

    def _extend(self, chunks: "Sequence[_Chunk]") -> None:
        self._chunks += chunks
        if len(self._chunks) == TILES_PER_SHARD:
            self._flush()

    def _flush(self) -> None:
        """Begin to write the open shard, after the one before it is written: its buffer is needed next."""
        self._finish()
        if self._chunks:
            name = f"c/{len(self._shards)}/0/0/0"
            path = self._path / "tiles" / name
            self._writing = (name, self._disk.submit(write_shard, path, self._chunks, TILES_PER_SHARD))
        self._chunks, self._buffers = [], self._buffers[::-1]

    def _finish(self) -> None:
        if self._writing is not None:
            name, written = self._writing
            self._shards[name] = written.result()
            self._writing = None

    def _encode(self, tiles: UInt8[np.ndarray, "tile h w 3"], rows: range) -> "list[_Chunk]":
        """Compress ``rows`` of tiles, the first of which goes into the open shard's next slot."""
        if self._codec != "lossless":
            return [with_checksum(encode_jpeg(tiles[row])) for row in rows]
        free = self._buffers[0][len(self._chunks) :]
        return [_compress(tiles[row], free[row]) for row in rows]


def _compress(tile: UInt8[np.ndarray, "h w 3"], buffer: UInt8[np.ndarray, " _"]) -> UInt8[np.ndarray, " _"]:
    """Compress into ``buffer``, with the checksum; returns the part that was used."""
    room = cast(Any, buffer[:-CRC_BYTES])
    found = imagecodecs.blosc_encode(tile, level=1, compressor="lz4", shuffle=0, numthreads=1, out=room)
    end = len(found)
    buffer[end : end + CRC_BYTES] = np.frombuffer(crc32c(buffer[:end]), np.uint8)
    return buffer[: end + CRC_BYTES]


class TileStore:
    """Tiles of one slide, opened for reading. Cheap to open; pixels are read when asked for."""

    def __init__(self, path: Path, group: zarr.Group, attributes: Attributes) -> None:
        self.path = path
        self.attributes = attributes
        self._group = group
        self._count = int(cast("zarr.Array[Any]", group["tiles"]).shape[0])

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
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        tiles = np.empty((len(rows), self.tile_px, self.tile_px, 3), np.uint8)
        damaged = np.zeros(len(rows), np.bool_)
        for number, positions in by_shard(rows, TILES_PER_SHARD).items():
            try:
                with closing(open_shard(self.path / "tiles" / f"c/{number}/0/0/0", TILES_PER_SHARD)) as shard:
                    self._read_shard(shard, rows, positions, (tiles, damaged), threads)
            except (ShardError, ReadError) as error:
                first, last = rows[positions].min(), rows[positions].max()
                raise StoreError(
                    f"{self.path.name}: tiles {first} to {last} cannot be read ({error})",
                    "intact chunks",
                    "Tile this slide again with --overwrite.",
                ) from error
        return tiles, damaged

    def _read_shard(
        self,
        shard: Shard,
        rows: Int64[np.ndarray, " n"],
        positions: Int64[np.ndarray, " m"],
        into: tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, " n"]],
        threads: Threads | None,
    ) -> None:
        tiles, damaged = into

        def serve(part: range) -> None:
            for position in positions[part.start : part.stop].tolist():
                chunk = shard.chunk(int(rows[position]) % TILES_PER_SHARD)
                try:
                    self._decode(chunk, tiles[position])
                except ReadError:
                    if self.attributes["codec"] != CODECS["kept"]:
                        raise
                    tiles[position] = 255
                    damaged[position] = True

        (threads or Threads()).each(serve, len(positions))

    def _decode(self, chunk: UInt8[np.ndarray, " bytes"], tile: UInt8[np.ndarray, "h w 3"]) -> None:
        if self.attributes["codec"] != CODECS["lossless"]:
            decode_jpeg(chunk, tile)
            return
        try:
            imagecodecs.blosc_decode(chunk, numthreads=1, out=cast(Any, tile.reshape(-1)))
        except (RuntimeError, ValueError) as error:
            raise ReadError(str(error)) from error
