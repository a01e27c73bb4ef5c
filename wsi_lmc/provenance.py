"""Fingerprints: what was done to which bytes, as short stable hashes.

A result counts as done only when the fingerprints of its configuration and of its slide both match (never because a
file exists), so both must cover everything that changes pixels and nothing that does not (paths, dates, workers).
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from wsi_lmc import __version__

_PROBE_BYTES = 1 << 20


def fingerprint(value: object) -> str:
    """SHA-256 (first 16 hex digits) of a frozen configuration or any JSON-like value, key order ignored."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_json(value: object) -> object:
    """Turn dataclasses, paths and tuples into what ``json`` writes; raises TypeError on anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def file_fingerprint(path: Path) -> str:
    """Fingerprint of a slide: its size and the SHA-256 of its first, middle and last MiB.

    A gigabyte slide is not read whole for this; any edit that changes the size, the header or the trailing
    directories is seen. A folder (MRXS, multi-file DICOM) is represented by its index file alone.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for offset in sorted({0, max(0, size // 2 - _PROBE_BYTES // 2), max(0, size - _PROBE_BYTES)}):
            file.seek(offset)
            digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()[:16]


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 over an array's bytes in C order, prefixed by its type and shape."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def created_by() -> str:
    """Name and version of this program, as stored with every result; no date, so that equal input gives equal bytes."""
    return f"wsi-lmc {__version__}"
