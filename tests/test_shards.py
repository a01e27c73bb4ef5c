"""Shards: what is written here zarr reads, what zarr writes is read here, and damage never passes."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from wsi_lmc.shards import ShardBuffer, ShardError, by_shard, open_shard

SLOTS = 7
ROWS = np.arange(5 * 6, dtype=np.uint8).reshape(5, 6)  # five chunks of six bytes: two slots stay free


def _array(path: Path) -> "zarr.Array":
    """An array whose single shard has seven chunks of one row, stored as raw bytes with a checksum."""
    return zarr.create_array(
        path, shape=ROWS.shape, dtype=np.uint8, chunks=(1, 6), shards=(SLOTS, 6), compressors=[Crc32cCodec()],
        filters=None, fill_value=9,
    )  # fmt: skip


def _write(path: Path) -> bytes:
    return ShardBuffer(SLOTS).write_packed(path, [row.tobytes() for row in ROWS])


def test_zarr_reads_what_is_written_here(tmp_path: Path) -> None:
    array = _array(tmp_path / "a")
    _write(tmp_path / "a" / "c" / "0" / "0")
    np.testing.assert_array_equal(np.asarray(array[...]), ROWS)


def test_what_zarr_writes_is_read_here(tmp_path: Path) -> None:
    array = _array(tmp_path / "a")
    array[...] = ROWS
    with closing(open_shard(tmp_path / "a" / "c" / "0" / "0", SLOTS)) as shard:
        for slot, row in enumerate(ROWS):
            assert shard.chunk(slot).tobytes() == row.tobytes()
        with pytest.raises(ShardError, match=r"chunk 6 of .*0/0 is absent"):
            shard.chunk(6)


def test_the_codec_of_zarr_is_the_one_meant() -> None:
    codec = ShardingCodec(chunk_shape=(1,), codecs=[BytesCodec(), ZstdCodec()])
    assert [type(inner).__name__ for inner in codec.index_codecs] == ["BytesCodec", "Crc32cCodec"]


def test_content_is_known_without_reading_it_again(tmp_path: Path) -> None:
    told = _write(tmp_path / "shard")
    with closing(open_shard(tmp_path / "shard", SLOTS)) as shard:
        assert shard.checksums() == told
    other = [row.tobytes() for row in ROWS[::-1]]
    assert ShardBuffer(SLOTS).write_packed(tmp_path / "other", other) != told


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    _write(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(ShardError), closing(open_shard(path, SLOTS)) as shard:
            shard.checksums()


@pytest.mark.parametrize("size", [0, 3, 20, 115])
def test_a_shard_cut_short_is_noticed(size: int, tmp_path: Path) -> None:
    _write(tmp_path / "shard")
    (tmp_path / "shard").write_bytes((tmp_path / "shard").read_bytes()[:size])
    with pytest.raises(ShardError):
        open_shard(tmp_path / "shard", SLOTS)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"c/0/0: No such file"):
        open_shard(tmp_path / "c" / "0" / "0", SLOTS)


def test_a_shard_is_never_written_over(tmp_path: Path) -> None:
    _write(tmp_path / "shard")
    with pytest.raises(FileExistsError):
        _write(tmp_path / "shard")


def test_rows_are_grouped_by_their_shard() -> None:
    groups = by_shard(np.asarray([9, 0, 8, 20, 0]), 8)
    assert {number: positions.tolist() for number, positions in groups.items()} == {0: [1, 4], 1: [0, 2], 2: [3]}
