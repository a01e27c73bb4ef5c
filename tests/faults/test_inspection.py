"""Damage of every kind, in every file and every chunk of a store, is found and named; whole stores raise no alarm."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.test_tilestore import CODECS, make_rows, make_tiles, write
from wsi_lmc.featurestore import write_features
from wsi_lmc.inspection import problems_of_features, problems_of_tiles
from wsi_lmc.shards import open_shard
from wsi_lmc.tilestore import TILES_PER_SHARD, StoredCodec, shard_name
from wsi_lmc.zarrio import seal

pytestmark = pytest.mark.row(18)
COUNT = TILES_PER_SHARD + 9
Inspect = Callable[[Path], list[str]]


def _features(path: Path, count: int = 4096 + 7) -> Path:
    values = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    described = {"slide": {"id": "a"}, "encoder": {"dtype": "float32"}, "slide_fingerprint": "1"}
    write_features(path, values, make_rows(count), described)
    return path


@pytest.fixture(scope="module", params=[*CODECS, "features"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inspect]:
    folder = tmp_path_factory.mktemp("whole") / "a.zarr"
    if request.param == "features":
        return _features(folder), problems_of_features
    return write(folder, make_tiles(COUNT), request.param).path, problems_of_tiles


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_delete, _truncate, _zero, _append])
def test_damage_to_any_file_is_found_and_named(
    whole: tuple[Path, Inspect], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    path, inspect = whole
    assert inspect(path) == []
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    assert len(files) >= 9
    for file in files:
        copy = Path(shutil.copytree(path, tmp_path / "copy.zarr"))
        damage(copy / file)
        assert any(line.startswith(file.as_posix()) for line in inspect(copy)), (file, inspect(copy))
        shutil.rmtree(copy)


def test_a_flipped_bit_anywhere_is_found(whole: tuple[Path, Inspect], tmp_path: Path) -> None:
    """Of every file the first and the last byte, and a sample between; seeds are fixed, so failures come again."""
    path, inspect = whole
    random = np.random.default_rng(1)
    copy = Path(shutil.copytree(path, tmp_path / "copy.zarr"))
    for file in sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file()):
        data = (path / file).read_bytes()
        for at in {0, len(data) - 1, *random.integers(0, len(data), 25).tolist()}:
            bit = int(random.integers(8))
            _flip(copy / file, at, bit)
            assert inspect(copy), f"{file}, byte {at}, bit {bit}"
            (copy / file).write_bytes(data)
    assert inspect(copy) == []


@pytest.mark.parametrize("codec", CODECS)
def test_every_damaged_tile_is_named(codec: StoredCodec, tmp_path: Path) -> None:
    """Alone, some of them; and every one of a shard beside all others."""
    path = write(tmp_path / "a.zarr", make_tiles(COUNT), codec).path
    for number in range(2):
        file = path / "tiles" / shard_name(number)
        data = file.read_bytes()
        slots = range(min(TILES_PER_SHARD, COUNT - number * TILES_PER_SHARD))
        with closing(open_shard(file, TILES_PER_SHARD)) as shard:
            middles = [int(shard.index[slot][0]) + int(shard.index[slot][1]) // 2 for slot in slots]
        for slot in {*slots[:: max(1, len(slots) // 16)], slots[-1]}:
            _flip(file, middles[slot])
            (said,) = problems_of_tiles(path)
            assert said.startswith(f"tiles/{file.name}: chunk {slot} of")
            file.write_bytes(data)
        for middle in middles:
            _flip(file, middle)
        for slot, said in zip(slots, problems_of_tiles(path), strict=True):
            assert said.startswith(f"tiles/{file.name}: chunk {slot} of")
        file.write_bytes(data)


def test_what_nobody_wrote_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", make_tiles(5), "jpeg").path
    (path / "tiles" / "c.1.0.0.0").write_bytes(b"x")
    (path / "note.txt").write_text("mine")
    found = problems_of_tiles(path)
    assert "note.txt: not part of this store" in found
    assert "tiles/c.1.0.0.0: not part of this store" in found


def test_features_that_are_not_finite_are_named(tmp_path: Path) -> None:
    values = np.zeros((9, 4), np.float32)
    values[5, 2] = np.nan
    write_features(tmp_path / "a.zarr", values, make_rows(9), {"slide": {"id": "a"}, "encoder": {"dtype": "float32"}})
    assert problems_of_features(tmp_path / "a.zarr") == ["features: 1 rows are not finite, the first is 5"]


def test_arrays_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    values, described = np.zeros((9, 4), np.float32), {"slide": {"id": "a"}, "encoder": {"dtype": "float32"}}
    write_features(tmp_path / "a.zarr", values, make_rows(8), described)
    found = problems_of_features(tmp_path / "a.zarr")
    assert "origins: int32 (8, 2), expected int32 (9, 2)" in found


def test_another_kind_of_store_is_named(tmp_path: Path) -> None:
    path = _features(tmp_path / "a.zarr", 3)
    assert "wsi-lmc/features" in problems_of_tiles(path)[0]
    assert problems_of_tiles(tmp_path / "b.zarr") == ["zarr.json: missing"]


def test_a_store_without_tiles_is_whole(tmp_path: Path) -> None:
    assert problems_of_tiles(write(tmp_path / "a.zarr", make_tiles(0), "lossless").path) == []
    assert problems_of_features(_features(tmp_path / "b.zarr", 0)) == []


def test_fifty_whole_stores_raise_no_alarm(tmp_path: Path) -> None:
    for seed in range(50):
        count = int(np.random.default_rng(seed).integers(0, 2 * TILES_PER_SHARD))
        codec: StoredCodec = CODECS[seed % len(CODECS)]
        assert problems_of_tiles(write(tmp_path / f"{seed}.zarr", make_tiles(count), codec).path) == []
        assert problems_of_features(_features(tmp_path / f"{seed}-f.zarr", count)) == []


def test_a_store_sealed_before_seals_is_taken_at_its_word(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", make_tiles(3), "jpeg").path
    group = zarr.open_group(path, mode="r+")
    attributes = {k: v for k, v in group.attrs.asdict().items() if k not in ("sealed", "metadata_sha256")}
    group.attrs.put(attributes)
    assert problems_of_tiles(path) == []
    seal(path, attributes)
    assert problems_of_tiles(path) == []
