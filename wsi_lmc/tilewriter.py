"""Writing a tile store: whoever decodes a tile compresses it, and shards go to the disk while the next are filled."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, cast

import imagecodecs
import numpy as np
import zarr
from imagecodecs.zarr import Jpeg
from jaxtyping import UInt8
from zarr.codecs import BloscCodec, Crc32cCodec

from wsi_lmc.shards import CRC_BYTES, ShardBuffer, crc32c
from wsi_lmc.slide import encode_jpeg
from wsi_lmc.threads import Threads
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
_WRITTEN_TOGETHER = 2  # shards: a disk gives more to two who ask
_BLOSC = BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1)
_JPEG: dict[StoredCodec, Jpeg] = {"kept": Jpeg(), "jpeg": Jpeg(level=95, subsampling="444")}


@dataclass
class _OpenShard:
    """A shard that is being filled: its memory, and its chunks so far.

    A chunk is its compressed bytes; or how many bytes of its slot in the memory it takes, with its checksum. Chunks
    that were laid into the memory side by side are known by their ``lengths`` alone.
    """

    buffer: ShardBuffer
    lengths: list[int] = field(default_factory=list)
    chunks: list[bytes | int | None] = field(default_factory=lambda: [None] * TILES_PER_SHARD)


class TileStoreWriter:
    """Writes one store and seals it with attributes and checksums; a context manager.

    Tiles may come in any order and from several threads, into shards near each other; once all of a shard's tiles are
    there it goes to the disk, in threads of their own, so that waiting for it does not stop the decoding.

    ``count`` may be None where it is known only in the end; then tiles come in order, as :meth:`flush` is told.
    """

    def __init__(self, path: Path, count: int | None, tile_px: int, codec: StoredCodec) -> None:
        register_jpeg()
        self._path, self._group, self._count = path, create_group(path), count
        self._codec: StoredCodec = codec
        self._shards: dict[str, bytes] = {}
        self._open: dict[int, _OpenShard] = {}
        self._spare: list[ShardBuffer] = []
        self._lock = Lock()
        self.white = encode_jpeg(np.full((tile_px, tile_px, 3), 255, np.uint8))
        self._writing: deque[tuple[str, ShardBuffer, Future[bytes]]] = deque()
        self._disk = ThreadPoolExecutor(_WRITTEN_TOGETHER, "disk")
        self._room = tile_px * tile_px * 3 + _BLOSC_OVERHEAD + CRC_BYTES if codec == "lossless" else 0
        jpeg = codec != "lossless"
        self._group.create_array(
            "tiles",
            shape=(count or 0, tile_px, tile_px, 3),
            dtype=np.uint8,
            chunk_key_encoding=FLAT_KEYS,
            chunks=(1, tile_px, tile_px, 3),
            shards=(TILES_PER_SHARD, tile_px, tile_px, 3),
            serializer=_JPEG[codec] if codec != "lossless" else "auto",
            compressors=[Crc32cCodec()] if jpeg else [_BLOSC, Crc32cCodec()],
            filters=None,
            fill_value=0,
        )

    def put(self, row: int, tile: UInt8[np.ndarray, "h w 3"]) -> None:
        """Compress tile ``row``; its memory is free afterwards."""
        shard, slot = self._shard_of(row)
        if self._codec == "lossless":
            shard.chunks[slot] = _compress(tile, shard.buffer.room_for(slot))
        else:
            shard.chunks[slot] = encode_jpeg(tile)

    def put_encoded(self, row: int, chunk: bytes) -> None:
        """Take tile ``row``, already compressed as the store's codec says."""
        shard, slot = self._shard_of(row)
        shard.chunks[slot] = chunk
        shard.lengths.clear()

    def lay(self, row: int, lengths: list[int]) -> list[UInt8[np.ndarray, " _"]]:
        """Room for all chunks of the shard that begins with tile ``row``, already compressed, of these bytes each."""
        shard, _ = self._shard_of(row)
        shard.lengths[:] = lengths
        return shard.buffer.lay(lengths)

    def flush(self, stop: int) -> None:
        """Begin to write every shard that is full now that all tiles before row ``stop`` have been put."""
        for number in sorted(self._open):
            end = (number + 1) * TILES_PER_SHARD
            if (end if self._count is None else min(end, self._count)) <= stop:
                self._begin_writing(number)

    def write(self, start: int, tiles: UInt8[np.ndarray, "tile h w 3"], threads: Threads) -> None:
        """Compress and write tiles from row ``start`` on, which are at hand already."""

        def put(rows: range) -> None:
            for row in rows:
                self.put(start + row, tiles[row])

        threads.each(put, len(tiles))
        self.flush(start + len(tiles))

    def close(self, rows: TileRows, attributes: Attributes) -> None:
        """Add the per-tile arrays, then the attributes with every array's SHA-256."""
        if self._count is None:
            self._count = len(rows.origins)
            self._resize()
            self.flush(self._count)
        self._finish()
        if len(self._shards) * TILES_PER_SHARD < self._count:
            raise ValueError(f"{len(self._shards)} shards written, which do not hold {self._count} tiles")
        write_array(self._group, "origins", rows.origins)
        write_array(self._group, "tissue_fraction", rows.tissue_fraction)
        write_array(self._group, "valid", rows.valid)
        header = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "codec": CODECS[self._codec]}
        seal(self._path, {**header, **attributes}, {"tiles": self._shards})

    def __enter__(self) -> "TileStoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.shutdown()

    def _resize(self) -> None:
        """Give the array its length, now that it is known."""
        tiles = cast("zarr.Array[Any]", self._group["tiles"])
        tiles.resize((self._count or 0, *tiles.shape[1:]))

    def _shard_of(self, row: int) -> tuple[_OpenShard, int]:
        number, slot = divmod(row, TILES_PER_SHARD)
        shard = self._open.get(number)
        if shard is None:
            with self._lock:
                if number not in self._open:
                    buffer = self._spare.pop() if self._spare else ShardBuffer(TILES_PER_SHARD, self._room)
                    self._open[number] = _OpenShard(buffer)
                shard = self._open[number]
        return shard, slot

    def _begin_writing(self, number: int) -> None:
        """Hand a shard to the disk, after those before the last: few wait in memory while others are being filled."""
        self._finish(_WRITTEN_TOGETHER - 1)
        shard, name = self._open.pop(number), shard_name(number)
        last = TILES_PER_SHARD if self._count is None else self._count - number * TILES_PER_SHARD
        chunks: Any = shard.lengths or shard.chunks[:last]
        write: Callable[..., bytes] = shard.buffer.write_laid if shard.lengths else shard.buffer.write_packed
        if self._codec == "lossless":
            write = shard.buffer.write_slots
        self._writing.append((name, shard.buffer, self._disk.submit(write, self._path / "tiles" / name, chunks)))

    def _finish(self, left: int = 0) -> None:
        """Wait until no more than ``left`` shards are being written."""
        while len(self._writing) > left:
            name, buffer, written = self._writing.popleft()
            self._shards[name] = written.result()
            self._spare.append(buffer)


def _compress(tile: UInt8[np.ndarray, "h w 3"], buffer: UInt8[np.ndarray, " _"]) -> int:
    """Compress into ``buffer``, with the checksum; returns how many bytes that takes."""
    room = cast(Any, buffer[:-CRC_BYTES])
    found = imagecodecs.blosc_encode(tile, level=1, compressor="lz4", shuffle=0, numthreads=1, out=room)
    end = len(found)
    buffer[end : end + CRC_BYTES] = np.frombuffer(crc32c(buffer[:end]), np.uint8)
    return end + CRC_BYTES
