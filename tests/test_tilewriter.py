"""Writing tiles in blocks of any size and with any number of threads gives the same store."""

from pathlib import Path

import numpy as np
import pytest

from wsi_lmc.shards import crc32c
from wsi_lmc.slide import encode_jpeg
from wsi_lmc.threads import Threads
from wsi_lmc.tilestore import StoredCodec, TileRows, TileStore
from wsi_lmc.tilewriter import TileStoreWriter
from wsi_lmc.zarrio import stored_sha256

PX, COUNT = 16, 300
TILES = np.random.default_rng(0).integers(0, 256, (COUNT, PX, PX, 3), np.uint8)
ROWS = TileRows(np.zeros((COUNT, 2), np.int32), np.zeros(COUNT, np.float32), np.zeros(COUNT, np.uint8))
DESCRIBED = {"slide": {"id": "a"}, "tile": {"px": PX}}


@pytest.mark.parametrize("codec", ["lossless", "jpeg"])
@pytest.mark.parametrize(("block", "threads"), [(1, 1), (7, 2), (256, 3), (300, 2)])
def test_blocks_and_threads_do_not_show(codec: StoredCodec, block: int, threads: int, tmp_path: Path) -> None:
    digests: list[dict[str, str]] = []
    shards: list[list[bytes]] = []
    for number, (size, count) in enumerate([(block, threads), (64, 1)]):
        path = tmp_path / f"{number}.zarr"
        with Threads(count) as some, TileStoreWriter(path, COUNT, PX, codec) as writer:
            for start in range(0, COUNT, size):
                writer.write(start, TILES[start : start + size], some)
            writer.close(ROWS, DESCRIBED)
        store = TileStore.open(path)
        assert store.attributes["sha256"]["tiles"] == stored_sha256(path / "tiles")
        digests.append(store.attributes["sha256"])
        shards.append([shard.read_bytes() for shard in sorted((path / "tiles").glob("c.*"))])
    assert digests[0] == digests[1]
    assert shards[0] == shards[1]


def test_tiles_come_from_several_threads_in_any_order(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    with Threads(3) as threads, TileStoreWriter(tmp_path / "a.zarr", COUNT, PX, "lossless") as writer:

        def put(part: range) -> None:
            for position in part:
                writer.put(int(order[position]), TILES[order[position]])

        threads.each(put, COUNT)
        writer.flush(COUNT)
        writer.close(ROWS, DESCRIBED)
    np.testing.assert_array_equal(TileStore.open(tmp_path / "a.zarr").read(np.arange(COUNT)), TILES)


def test_a_store_with_a_shard_missing_is_not_sealed(tmp_path: Path) -> None:
    with TileStoreWriter(tmp_path / "a.zarr", COUNT, PX, "lossless") as writer:
        writer.write(0, TILES[:256], Threads())
        with pytest.raises(ValueError, match="do not hold 300 tiles"):
            writer.close(ROWS, DESCRIBED)


def test_what_is_encoded_already_is_kept_as_it_is(tmp_path: Path) -> None:
    jpegs = [encode_jpeg(tile) for tile in TILES]
    with TileStoreWriter(tmp_path / "a.zarr", COUNT, PX, "kept") as writer:
        for row, jpeg in enumerate(jpegs):
            writer.put_encoded(row, jpeg)
        writer.flush(COUNT)
        writer.close(ROWS, DESCRIBED)
    assert jpegs[299] + crc32c(jpegs[299]) in (tmp_path / "a.zarr/tiles/c.1.0.0.0").read_bytes()
    assert TileStore.open(tmp_path / "a.zarr").attributes["codec"] == "the slide's own jpeg + crc32c"
