"""Writing a tile store: tiles are compressed in threads, and shards go to the disk while the next are decoded."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import imagecodecs
import numpy as np
from imagecodecs.zarr import Jpeg
from jaxtyping import UInt8
from zarr.codecs import BloscCodec, Crc32cCodec

from wsi_lmc.shards import CRC_BYTES, ShardBuffer, crc32c
from wsi_lmc.slide import encode_jpeg
from wsi_lmc.threads import Pending, Threads
from wsi_lmc.tilestore import CODECS, SCHEMA, SCHEMA_VERSION, TILES_PER_SHARD, StoredCodec, TileRows, shard_name
from wsi_lmc.zarrio import (
    FLAT_KEYS,
    Attributes,
    create_group,
    register_jpeg,
    seal,
    write_array,
)

_BLOSC_OVERHEAD = 16
_Chunk = bytes | int  # compressed; or how many bytes of its slot it takes, with its checksum
_BLOSC = BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1)
_JPEG: dict[StoredCodec, Jpeg] = {"kept": Jpeg(), "jpeg": Jpeg(level=95, subsampling="444")}


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
        self._buffers = [ShardBuffer(TILES_PER_SHARD, room) for _ in range(2)]  # one is filled, one is being written
        jpeg = codec != "lossless"
        self._group.create_array(
            "tiles",
            shape=(count, tile_px, tile_px, 3),
            dtype=np.uint8,
            chunk_key_encoding=FLAT_KEYS,
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
            self._extend(chunks[start:stop])

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
            name = shard_name(len(self._shards))
            path = self._path / "tiles" / name
            write: Any = self._buffers[0].write_slots if self._codec == "lossless" else self._buffers[0].write_packed
            self._writing = (name, self._disk.submit(write, path, self._chunks))
        self._chunks, self._buffers = [], self._buffers[::-1]

    def _finish(self) -> None:
        if self._writing is not None:
            name, written = self._writing
            self._shards[name] = written.result()
            self._writing = None

    def _encode(self, tiles: UInt8[np.ndarray, "tile h w 3"], rows: range) -> "list[_Chunk]":
        """Compress ``rows`` of tiles, the first of which goes into the open shard's next slot."""
        if self._codec != "lossless":
            return [encode_jpeg(tiles[row]) for row in rows]
        buffer, filled = self._buffers[0], len(self._chunks)
        return [_compress(tiles[row], buffer.room_for(filled + row)) for row in rows]


def _compress(tile: UInt8[np.ndarray, "h w 3"], buffer: UInt8[np.ndarray, " _"]) -> int:
    """Compress into ``buffer``, with the checksum; returns how many bytes that takes."""
    room = cast(Any, buffer[:-CRC_BYTES])
    found = imagecodecs.blosc_encode(tile, level=1, compressor="lz4", shuffle=0, numthreads=1, out=room)
    end = len(found)
    buffer[end : end + CRC_BYTES] = np.frombuffer(crc32c(buffer[:end]), np.uint8)
    return end + CRC_BYTES
