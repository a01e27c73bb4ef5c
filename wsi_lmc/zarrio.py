"""What both stores share: zarr v3 groups with a schema, checksums, and errors a user can act on.

zarr reads a deleted chunk as the fill value, silently: so arrays are opened by :func:`open_array`, which makes that an
error, and every group carries a SHA-256 of each array's stored bytes.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import imagecodecs.zarr
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import GroupNotFoundError

from wsi_lmc.errors import StoreError
from wsi_lmc.provenance import created_by
from wsi_lmc.shards import ShardError, open_shard

Attributes = dict[str, Any]
SEAL = "sealed"
"""Attribute with the SHA-256 of the group's own ``zarr.json``, as if it were zeros: no checksum of zarr's covers it."""
METADATA = "metadata_sha256"
"""Attribute with the SHA-256 of each array's ``zarr.json``: whoever looks for damage must know what it can rest on."""
_UNSEALED = "0" * 64
_SEALED = re.compile(rb'("' + SEAL.encode() + rb'": ")([0-9a-f]{64})(")')
FLAT_KEYS: Any = {"name": "default", "separator": "."}
"""Chunks lie beside each other as ``c.0.0``, without folders, which count against quotas as files do."""


def create_group(path: Path) -> zarr.Group:
    """Create an empty zarr v3 group; its attributes are written last, by :func:`seal`."""
    return zarr.open_group(path, mode="w-", zarr_format=3)


def write_array(group: zarr.Group, name: str, values: np.ndarray, chunk_rows: int | None = None) -> None:
    """Store a small array losslessly, split along its first axis every ``chunk_rows`` rows (None: one chunk)."""
    rows = max(1, len(values)) if chunk_rows is None else chunk_rows
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunk_key_encoding=FLAT_KEYS,
        chunks=(rows, *values.shape[1:]),
        compressors=lossless_codecs(),
        filters=None,
        config={"write_empty_chunks": True},  # else a deleted chunk of zeros could not be told from a stored one
    )
    if len(values):
        array[...] = values


def open_array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    """An array that raises ValueError where a chunk is gone."""
    return strict(cast("zarr.Array[Any]", group[name]))


def strict(array: "zarr.Array[Any]") -> "zarr.Array[Any]":
    """The same array, which raises ValueError where a chunk is gone."""
    return array.with_config({"read_missing_chunks": False})


def read_array(group: zarr.Group, name: str) -> np.ndarray:
    """A whole small array.

    Raises:
        StoreError: a chunk is damaged (its crc32c does not match) or gone.
    """
    try:
        return np.asarray(open_array(group, name)[...])
    except (ValueError, RuntimeError, OSError) as error:
        store = str(group.store_path).rsplit("/", 1)[-1]
        raise StoreError(
            f"{store}: {name} cannot be read ({error})", "intact chunks", "Make this store again with --overwrite."
        ) from error


def lossless_codecs() -> list[Any]:
    """Zstandard level 1 (level 0, zarr's default, takes twice the time for the same size) and a crc32c a chunk."""
    return [ZstdCodec(level=1), Crc32cCodec()]


def register_jpeg() -> None:
    """Make zarr read and write ``imagecodecs_jpeg`` chunks; harmless when repeated."""
    imagecodecs.zarr.register_codecs({"jpeg"}, verbose=False)


def seal(path: Path, attributes: Attributes, shards: Mapping[str, Mapping[str, bytes]] | None = None) -> None:
    """Write a finished group's attributes, with the SHA-256 of every array, as the last step.

    ``shards`` is what is known of the arrays' shards from writing them, by array and relative path.
    """
    group = zarr.open_group(path, mode="r+")
    names = sorted(name for name, _ in group.arrays())
    digests = {name: stored_sha256(path / name, (shards or {}).get(name)) for name in names}
    metadata = {name: _sha256((path / name / "zarr.json").read_bytes()) for name in names}
    stated = {**attributes, "sha256": digests, METADATA: metadata, "created_by": created_by()}
    group.attrs.put({**stated, SEAL: _UNSEALED})
    file = path / "zarr.json"
    content = file.read_bytes()
    file.write_bytes(_with_seal(content, _sha256(content)))


def is_sealed(group_metadata: bytes) -> bool:
    """Whether a group's ``zarr.json`` is as it was sealed, byte by byte."""
    found = _SEALED.search(group_metadata)
    return found is not None and found[2].decode() == _sha256(_with_seal(group_metadata, _UNSEALED))


def _with_seal(content: bytes, digest: str) -> bytes:
    return _SEALED.sub(rb"\g<1>" + digest.encode() + rb"\g<3>", content, count=1)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stored_sha256(array_folder: Path, shards: Mapping[str, bytes] | None = None) -> str:
    """SHA-256 over an array's files: each relative path, then its content, in path order.

    Content is a file's bytes, but of a shard the length and crc32c of each chunk: these cover every byte that is ever
    read, and are known when the shard is written, while hashing gigabytes of tiles would cost a third of the time it
    takes to cut them.

    Args:
        array_folder: of the array.
        shards: what :class:`wsi_lmc.shards.ShardBuffer` gave, by relative path; shards not in it are read and checked.

    Raises:
        ShardError: a shard is damaged.
    """
    digest = hashlib.sha256()
    slots = _slots_of_a_shard(array_folder / "zarr.json")
    for path in _files(array_folder):
        name = path.relative_to(array_folder).as_posix()
        digest.update(name.encode())
        if slots is None or name == "zarr.json":
            _update(digest, path)
        elif shards is not None and name in shards:
            digest.update(shards[name])
        else:
            with closing(open_shard(path, slots)) as shard:
                digest.update(shard.checksums())
    return digest.hexdigest()


def _files(array_folder: Path) -> list[Path]:
    return [path for path in sorted(array_folder.rglob("*")) if path.is_file()]


def _sha256_of_files(array_folder: Path) -> str:
    """SHA-256 over each relative path and the file's bytes, whatever they are."""
    digest = hashlib.sha256()
    for path in _files(array_folder):
        digest.update(path.relative_to(array_folder).as_posix().encode())
        _update(digest, path)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)


def _slots_of_a_shard(metadata: Path) -> int | None:
    """Chunks in a shard of an array; None where it is not sharded, or where nothing tells (then its bytes count)."""
    try:
        document = json.loads(metadata.read_text(encoding="utf-8"))
        (codec,) = document["codecs"]
        if codec["name"] != "sharding_indexed":
            return None
        whole, inner = document["chunk_grid"]["configuration"]["chunk_shape"], codec["configuration"]["chunk_shape"]
        return math.prod(outer // side for outer, side in zip(whole, inner, strict=True))
    except (OSError, ValueError, KeyError, TypeError):
        return None


Upgrade = Callable[[Attributes], Attributes]
"""What makes a version's attributes those of the next; the arrays stay as they are on disk."""


def open_sealed(
    path: Path, schema: str, version: int, arrays: Sequence[str], upgrades: Mapping[int, Upgrade] = MappingProxyType({})
) -> tuple[zarr.Group, Attributes]:
    """Open a group for reading and check what it says of itself.

    Stores of older versions are read where ``upgrades`` has a way, by the version it starts from, up to ``version``;
    attributes are upgraded in memory alone.

    Raises:
        StoreError: nothing there, another schema, a version that cannot be read, or an array is missing.
    """
    kind = schema.split("/")[-1]
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        missing = [name for name in arrays if name not in group]
    except (GroupNotFoundError, FileNotFoundError) as error:
        raise StoreError(f"no zarr v3 group at {path}", f"a store of {kind}", "Check the path.") from error
    except (ValueError, TypeError, KeyError, OSError) as error:  # a torn zarr.json, or an array stands there
        raise StoreError(f"{path.name} cannot be opened ({error})", f"a store of {kind}", "Make it again.") from error
    attributes = cast(Attributes, group.attrs.asdict())
    found = attributes.get("schema")
    if found != schema:
        raise StoreError(f"{path.name} holds {found or 'no schema'}", schema, f"Give a store of {kind}.")
    attributes = _upgraded(path.name, attributes, version, upgrades)
    if missing:
        raise StoreError(f"{path.name} lacks {', '.join(missing)}", f"{', '.join(arrays)}", "Make the store again.")
    return group, attributes


def _upgraded(name: str, attributes: Attributes, version: int, upgrades: Mapping[int, Upgrade]) -> Attributes:
    found = attributes.get("schema_version")
    number = found if isinstance(found, int) else 0
    while number in upgrades and number != version:
        attributes, number = upgrades[number](attributes), number + 1
    if number == version:
        return attributes
    oldest = min([version, *upgrades])
    raise StoreError(
        f"{name} is schema version {found}, written by {attributes.get('created_by', 'an unknown program')}",
        f"version {version}" if oldest == version else f"version {oldest} to {version}",
        "Update wsi-lmc to read it." if number > version else "Make it again with this version of wsi-lmc.",
    )


def damaged_arrays(path: Path, attributes: Attributes) -> list[str]:
    """Names of the arrays whose stored bytes no longer match their SHA-256."""
    digests = cast(dict[str, str], attributes["sha256"])
    first = METADATA not in attributes
    return [name for name, digest in sorted(digests.items()) if not _matches(path / name, digest, first)]


def _matches(array_folder: Path, digest: str, first: bool) -> bool:
    """Whether an array is as it was sealed; in the ``first`` stores a digest could be of the bytes of shards."""
    try:
        if stored_sha256(array_folder) == digest:
            return True
    except ShardError:
        return False
    return first and _sha256_of_files(array_folder) == digest
