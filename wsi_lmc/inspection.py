"""One store, looked at byte by byte: what is damaged, missing or foreign in it, by name.

Every byte that is ever read is covered: chunks by their checksums, arrays by the SHA-256 the store was sealed with,
attributes by their seal, and what lies between the chunks of a shard by being zeros.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import IMPORTED, FeatureStore
from wsi_lmc.shards import ShardError, open_shard
from wsi_lmc.tilestore import TILES_PER_SHARD, TileStore, Validity
from wsi_lmc.zarrio import METADATA, SEAL, Attributes, damaged_arrays, is_sealed, strict

_METADATA = "zarr.json"
Arrays = dict[str, "zarr.Array[Any]"]
_ROWS: dict[str, tuple[tuple[int, ...], str]] = {
    "origins": ((2,), "int32"),
    "tissue_fraction": ((), "float32"),
    "valid": ((), "uint8"),
}


def problems_of_tiles(path: Path) -> list[str]:
    """What is wrong with a tile store; each line begins with the part that is damaged."""
    found = _damaged_metadata(path)
    if found:
        return found
    try:
        store = TileStore.open(path)
    except StoreError as error:
        return [f"{_METADATA}: {error.found}"]
    side = store.attributes["tile"]["px"]
    return _problems(path, store.attributes, "tiles", {**_ROWS, "tiles": ((side, side, 3), "uint8")})


def problems_of_features(path: Path) -> list[str]:
    """What is wrong with a feature store; each line begins with the part that is damaged."""
    found = _damaged_metadata(path)
    if found:
        return found
    try:
        store = FeatureStore.open(path)
    except StoreError as error:
        return [f"{_METADATA}: {error.found}"]
    dim = cast("zarr.Array[Any]", store.group["features"]).shape[1:]
    dtype = str(store.attributes["encoder"]["dtype"])
    found = _problems(path, store.attributes, "features", {**_ROWS, "features": (dim, dtype)})
    if not found:
        rows = np.flatnonzero(~np.isfinite(store.features).all(axis=1))
        found += [f"features: {len(rows)} rows are not finite, the first is {rows[0]}"] if len(rows) else []
    return found


def problems_of_cache(path: Path) -> list[str]:
    """What is wrong with a sealed store that can be computed again, whatever it holds."""
    found = _damaged_metadata(path)
    if found:
        return found
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        attributes = group.attrs.asdict()
        names = cast(dict[str, str], attributes["sha256"])
        found = _wrong_files(path, _arrays(group, names), names)
        return found or [f"{name}: not as it was sealed" for name in damaged_arrays(path, attributes)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{_METADATA}: cannot be read ({error})"]


def _damaged_metadata(path: Path) -> list[str]:
    """What is wrong with the small JSON files, on which all else rests; nothing else may be looked at where there is.

    Stores that were made before these were sealed are taken at their word.
    """
    try:
        content = (path / _METADATA).read_bytes()
        attributes = json.loads(content)["attributes"]
        sealed = SEAL not in attributes or is_sealed(content)
        digests = dict(attributes.get(METADATA, {}))
    except FileNotFoundError:
        return [f"{_METADATA}: missing"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        return [f"{_METADATA}: cannot be read ({error})"]
    if not sealed:
        return [f"{_METADATA}: not as it was sealed"]
    files = {f"{name}/{_METADATA}": digest for name, digest in digests.items()}
    missing = [f"{name}: missing" for name in files if not (path / name).is_file()]
    return missing or [
        f"{name}: not as it was sealed" for name, digest in files.items() if _sha256(path / name) != digest
    ]


def _problems(
    path: Path, attributes: Attributes, main: str, wanted: dict[str, tuple[tuple[int, ...], str]]
) -> list[str]:
    """Shapes, files and bytes, each only where what it rests on is right."""
    arrays = _arrays(zarr.open_group(path, mode="r", zarr_format=3), {**wanted, **attributes["sha256"]})
    found = _wrong_shapes(arrays, main, wanted) or _wrong_files(path, arrays, attributes["sha256"])
    damaged = damaged_arrays(path, attributes)
    for name in damaged:
        chunks = list(_damaged_chunks(path, arrays[name], name))
        found += chunks or ([] if any(line.startswith(name) for line in found) else [f"{name}: not as it was sealed"])
    found += [f"{name}: no checksum" for name in wanted if name not in attributes["sha256"]]
    return found or _slack(path, arrays, main) or _impossible(arrays, IMPORTED in attributes)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrays(group: zarr.Group, names: Iterable[str]) -> Arrays:
    """Arrays of a group, looked up once: every look-up takes a millisecond."""
    return {name: cast("zarr.Array[Any]", group[name]) for name in names}


def _wrong_shapes(arrays: Arrays, main: str, wanted: dict[str, tuple[tuple[int, ...], str]]) -> list[str]:
    count = arrays[main].shape[0]
    found: list[str] = []
    for name, (shape, dtype) in wanted.items():
        array = arrays[name]
        if array.shape != (count, *shape) or array.dtype != dtype:
            found.append(f"{name}: {array.dtype} {array.shape}, expected {dtype} {(count, *shape)}")
    return found


def _wrong_files(path: Path, arrays: Arrays, names: Iterable[str]) -> list[str]:
    """Files that are missing, and such as nobody here wrote."""
    expected = {_METADATA}
    for name in names:
        keys = _keys(arrays[name])
        expected |= {f"{name}/{_METADATA}", *(f"{name}/{key}" for key in keys)}
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    missing = [f"{name}: missing" for name in sorted(expected - present)]
    return missing + [f"{name}: not part of this store" for name in sorted(present - expected)]


def _keys(array: "zarr.Array[Any]") -> Iterator[str]:
    """Names of an array's files."""
    sides = array.shards or array.chunks
    grid = [range(math.ceil(length / side)) for length, side in zip(array.shape, sides, strict=True)]
    return (array.metadata.encode_chunk_key(index) for index in itertools.product(*grid))


def _damaged_chunks(path: Path, array: "zarr.Array[Any]", name: str) -> Iterator[str]:
    """Which chunks of an array cannot be read."""
    for number, key in enumerate(_keys(array)):
        if not (path / name / key).is_file():
            continue  # said already
        if array.shards is not None:
            rows = min(TILES_PER_SHARD, array.shape[0] - number * TILES_PER_SHARD)
            yield from (f"{name}/{key}: {said}" for said in _damaged_of_shard(path / name / key, rows))
            continue
        start = number * array.chunks[0]
        try:
            strict(array)[start : start + array.chunks[0]]
        except (ValueError, RuntimeError, OSError) as error:
            yield f"{name}/{key}: cannot be read ({error})"


def _damaged_of_shard(path: Path, rows: int) -> Iterator[str]:
    try:
        shard = open_shard(path, TILES_PER_SHARD)
    except ShardError as error:
        yield str(error)
        return
    with closing(shard):
        for slot in range(rows):
            said = _error_of(lambda slot=slot: shard.chunk(slot))
            if said:
                yield said


def _error_of(read: Callable[[], object]) -> str:
    try:
        read()
    except ShardError as error:
        return str(error)
    return ""


def _slack(path: Path, arrays: Arrays, name: str) -> list[str]:
    """Shards with something between their chunks: harmless, but not as they were written."""
    array = arrays[name]
    found: list[str] = []
    for key in _keys(array) if array.shards is not None else ():
        with closing(open_shard(path / name / key, TILES_PER_SHARD)) as shard:
            found += [] if shard.slack_is_empty() else [f"{name}/{key}: bytes between the chunks were changed"]
    return found


def _impossible(arrays: Arrays, imported: bool) -> list[str]:
    """Values that no slide gives; whoever changes them and the checksums alike is not looked for.

    Of ``imported`` features nobody knows how much tissue is in their tiles.
    """
    valid, fraction = (np.asarray(strict(arrays[name])[...]) for name in ("valid", "tissue_fraction"))
    found = [] if not len(valid) or valid.max() <= max(Validity) else [f"valid: {valid.max()}, expected at most 3"]
    inside = (fraction >= 0) & (fraction <= 1.0001) | (imported & np.isnan(fraction))
    return found if inside.all() else [*found, "tissue_fraction: values outside 0 to 1"]
