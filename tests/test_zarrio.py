"""Stores on disk: every kind of damage is found, and stock zarr reads them without this package."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsi_lmc.errors import StoreError
from wsi_lmc.provenance import created_by
from wsi_lmc.zarrio import create_group, damaged_arrays, open_sealed, read_array, seal, stored_sha256, write_array

SCHEMA = "wsi-lmc/numbers"
NUMBERS = np.arange(35, dtype=np.int32).reshape(7, 5)
ZEROS = np.zeros((6, 2), np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Numbers in three chunks, zeros in one."""
    path = tmp_path / "a.zarr"
    group = create_group(path)
    write_array(group, "numbers", NUMBERS, chunk_rows=3)
    write_array(group, "zeros", ZEROS)
    seal(path, {"schema": SCHEMA, "schema_version": 1, "slide": {"id": "a"}})
    return path


def open_store(path: Path) -> tuple[zarr.Group, dict[str, Any]]:
    return open_sealed(path, SCHEMA, 1, ("numbers", "zeros"))


def flip(position: float) -> Callable[[Path], None]:
    def damage(chunk: Path) -> None:
        data = bytearray(chunk.read_bytes())
        data[round(position * (len(data) - 1))] ^= 1
        chunk.write_bytes(data)

    return damage


def truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])


def empty(chunk: Path) -> None:
    chunk.write_bytes(b"")


def blank(chunk: Path) -> None:
    chunk.write_bytes(bytes(chunk.stat().st_size))


DAMAGES = [flip(0.0), flip(0.5), flip(1.0), truncate, empty, blank, Path.unlink]


def chunks(store: Path, name: str) -> list[Path]:
    return sorted(path for path in (store / name).glob("c.*"))


def test_what_is_written_is_read_back(store: Path) -> None:
    group, attributes = open_store(store)
    for name, expected in (("numbers", NUMBERS), ("zeros", ZEROS)):
        values = read_array(group, name)
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)
    assert len(chunks(store, "numbers")) == 3
    assert attributes["slide"] == {"id": "a"}
    assert attributes["created_by"] == created_by()
    assert damaged_arrays(store, attributes) == []


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_chunk_is_found_and_never_read(damage: Callable[[Path], None], chunk: int, store: Path) -> None:
    damage(chunks(store, "numbers")[chunk])
    group, attributes = open_store(store)
    assert damaged_arrays(store, attributes) == ["numbers"]
    with pytest.raises(StoreError, match=r"a\.zarr: numbers cannot be read"):
        read_array(group, "numbers")
    np.testing.assert_array_equal(read_array(group, "zeros"), ZEROS)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_chunk_of_zeros_that_is_lost_is_no_chunk_of_zeros(damage: Callable[[Path], None], store: Path) -> None:
    (chunk,) = chunks(store, "zeros")
    damage(chunk)
    group, attributes = open_store(store)
    assert damaged_arrays(store, attributes) == ["zeros"]
    with pytest.raises(StoreError, match="zeros cannot be read"):
        read_array(group, "zeros")


def test_other_changes_to_an_array_are_found(store: Path) -> None:
    _, attributes = open_store(store)
    first, second, _ = chunks(store, "numbers")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert damaged_arrays(store, attributes) == ["numbers"]
    first.write_bytes(content)
    assert damaged_arrays(store, attributes) == []
    metadata = store / "numbers" / "zarr.json"
    metadata.write_text(metadata.read_text().replace("int32", "uint32"))
    assert damaged_arrays(store, attributes) == ["numbers"]
    (store / "numbers" / "extra").write_text("")
    chunks(store, "zeros")[0].rename(store / "zeros" / "d.0")
    assert damaged_arrays(store, attributes) == ["numbers", "zeros"]


def test_the_same_input_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "b.zarr"
    group = create_group(other)
    write_array(group, "zeros", ZEROS)
    write_array(group, "numbers", NUMBERS, chunk_rows=3)
    seal(other, {"schema": SCHEMA, "schema_version": 1, "slide": {"id": "a"}})
    files = {path.relative_to(store) for path in store.rglob("*") if path.is_file()}
    assert files == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    for file in files:
        assert (store / file).read_bytes() == (other / file).read_bytes(), file
    assert stored_sha256(store / "numbers") == stored_sha256(other / "numbers")


@pytest.mark.parametrize("shape", [(0,), (0, 2), (0, 384)])
@pytest.mark.parametrize("chunk_rows", [None, 4])
def test_empty_arrays_keep_their_shape(shape: tuple[int, ...], chunk_rows: int | None, tmp_path: Path) -> None:
    path = tmp_path / "empty.zarr"
    group = create_group(path)
    write_array(group, "nothing", np.zeros(shape, np.float16), chunk_rows)
    seal(path, {"schema": SCHEMA, "schema_version": 1})
    reopened, attributes = open_sealed(path, SCHEMA, 1, ("nothing",))
    values = read_array(reopened, "nothing")
    assert (values.shape, values.dtype) == (shape, np.float16)
    assert damaged_arrays(path, attributes) == []


def test_stock_zarr_reads_it_without_this_package(store: Path) -> None:
    """In a process that has no wsi_lmc, imagecodecs or torch loaded."""
    code = """
import sys, json, zarr
group = zarr.open_group(sys.argv[1], mode="r")
print(json.dumps([group["numbers"][:].tolist(), group["zeros"][:].tolist(), group.attrs["schema"]]))
assert not {"wsi_lmc", "imagecodecs", "torch"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [NUMBERS.tolist(), ZEROS.tolist(), SCHEMA]


def test_a_store_is_never_written_over(store: Path) -> None:
    with pytest.raises(FileExistsError):
        create_group(store)


def test_nothing_there_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("")
    for name in ("gone.zarr", "folder.zarr", "file.zarr"):
        with pytest.raises(StoreError, match=f"no zarr v3 group at .*{name}"):
            open_store(tmp_path / name)


@pytest.mark.parametrize("text", ["", '{"zarr_format', "\0\0\0\0", "[]"])
def test_torn_attributes_are_a_store_error(text: str, store: Path) -> None:
    (store / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"a\.zarr"):
        open_store(store)


def test_an_array_instead_of_a_store_is_a_store_error(store: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(store / "numbers")


def test_another_schema_version_or_a_missing_array_is_a_store_error(store: Path) -> None:
    with pytest.raises(StoreError, match="holds wsi-lmc/numbers; expected wsi-lmc/tiles"):
        open_sealed(store, "wsi-lmc/tiles", 1, ())
    with pytest.raises(
        StoreError, match=r"schema version 1, written by wsi-lmc .*; expected version 2\. Make it again"
    ):
        open_sealed(store, SCHEMA, 2, ())
    with pytest.raises(StoreError, match="lacks origins"):
        open_sealed(store, SCHEMA, 1, ("numbers", "origins"))


def test_an_older_version_is_upgraded_in_memory_and_a_newer_one_refused(store: Path, tmp_path: Path) -> None:
    before = (store / "zarr.json").read_bytes()
    ways = {
        1: lambda attributes: attributes | {"slide": {"name": attributes["slide"]["id"]}},
        2: lambda attributes: attributes | {"slide": {"title": attributes["slide"]["name"]}},
    }
    assert open_sealed(store, SCHEMA, 2, (), ways)[1]["slide"] == {"name": "a"}
    group, attributes = open_sealed(store, SCHEMA, 3, ("numbers",), ways)
    assert attributes["slide"] == {"title": "a"}
    np.testing.assert_array_equal(read_array(group, "numbers"), NUMBERS)
    assert damaged_arrays(store, attributes) == []
    assert (store / "zarr.json").read_bytes() == before
    with pytest.raises(StoreError, match=r"schema version 1, .*; expected version 2 to 3"):
        open_sealed(store, SCHEMA, 3, (), {2: ways[2]})
    newer = tmp_path / "newer.zarr"
    write_array(create_group(newer), "numbers", NUMBERS)
    seal(newer, {"schema": SCHEMA, "schema_version": 4})
    with pytest.raises(StoreError, match=r"schema version 4, written by .*; expected version 1 to 3\. Update wsi-lmc"):
        open_sealed(newer, SCHEMA, 3, (), ways)


def test_a_group_that_was_not_sealed_is_not_a_store(tmp_path: Path) -> None:
    """What a killed writer leaves has no attributes yet."""
    write_array(create_group(tmp_path / "half.zarr"), "numbers", NUMBERS)
    with pytest.raises(StoreError, match="holds no schema"):
        open_store(tmp_path / "half.zarr")
