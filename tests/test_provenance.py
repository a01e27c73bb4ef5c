"""Fingerprints: blind to order, sensitive to everything that changes a result."""

import dataclasses
import hashlib
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc import __version__
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.grid import GridConfig
from wsi_lmc.provenance import array_sha256, created_by, file_fingerprint, fingerprint
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tissue import TissueConfig
from wsi_lmc.training import TrainConfig

MIB = 1 << 20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), JSON, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_count(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert fingerprint(backwards) == fingerprint(value)


@given(JSON, JSON)
def test_only_equal_values_share_a_fingerprint(first: Any, second: Any) -> None:
    """1 and 1.0 are not equal here, and neither are 0 and False."""
    assert (fingerprint(first) == fingerprint(second)) == (_sorted(first) == _sorted(second))


def _sorted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_sorted(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_sorted, value)) + "]"
    return repr(value)


def _other(kind: Any, value: Any) -> Any:
    """A value of a field's type that is not ``value``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        field = dataclasses.fields(value)[0]
        hints = typing.get_type_hints(type(value), include_extras=False)
        name: Any = field.name
        return dataclasses.replace(value, **{name: _other(hints[name], getattr(value, name))})
    options = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return next(option for option in options if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 if value else 0.1  # a share stays one
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (value[0] * 0.9, *value[1:])
    wanted = next(option for option in options if option is not type(None))
    return {int: 3, float: 0.3, str: "x", bool: True}[wanted]


@pytest.mark.parametrize("config", [GridConfig, TissueConfig, TileConfig, EmbedConfig, TrainConfig])
def test_every_setting_changes_the_fingerprint(config: Any) -> None:
    default = config()
    hints = typing.get_type_hints(config, include_extras=False)
    seen = {fingerprint(default)}
    for field in dataclasses.fields(config):
        changed = dataclasses.replace(default, **{field.name: _other(hints[field.name], getattr(default, field.name))})
        assert fingerprint(changed) not in seen, field.name
        seen.add(fingerprint(changed))
    assert fingerprint(config()) == fingerprint(default)


def test_a_fingerprint_is_the_same_in_every_release() -> None:
    """Published results carry it: if this value changes, every result on disk is made again."""
    text = '{"edge":"drop","mpp":[0.5,1.0],"stride":null,"tile_px":256}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert fingerprint({"tile_px": 256, "mpp": (0.5, 1.0), "edge": "drop", "stride": None}) == expected


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}])
def test_values_that_json_does_not_know_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint(value)


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", np.float32(1)])
def test_types_without_one_meaning_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint"):
        fingerprint(value)


def _patched(data: bytes, offset: int) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("size", [1, 1000, MIB, MIB + 1, 3 * MIB, 7 * MIB + 13])
def test_a_file_is_known_by_its_size_head_middle_and_tail(size: int, tmp_path: Path) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    path = tmp_path / "slide.svs"
    path.write_bytes(data)
    original = file_fingerprint(path)
    variants = {_patched(data, 0), _patched(data, size - 1), _patched(data, size // 2), data + b"\0", data[:-1]}
    for variant in variants:
        path.write_bytes(variant)
        assert file_fingerprint(path) != original
    path.rename(tmp_path / "renamed.svs")
    (tmp_path / "renamed.svs").write_bytes(data)
    assert file_fingerprint(tmp_path / "renamed.svs") == original


def test_arrays_are_known_by_type_shape_and_values() -> None:
    values = np.arange(6, dtype=np.int32)
    different = [values, values.reshape(2, 3), values.reshape(3, 2), values.astype(np.uint32), values[::-1]]
    assert len({array_sha256(array) for array in different}) == len(different)
    assert array_sha256(values.reshape(2, 3).T) == array_sha256(np.ascontiguousarray(values.reshape(2, 3).T))
    assert array_sha256(np.zeros((0, 4), np.float32)) != array_sha256(np.zeros((0, 5), np.float32))


def test_the_maker_is_named_with_its_version_and_no_date() -> None:
    assert created_by() == f"wsi-lmc {__version__}"
