"""OpenVINO gives torch's features or is not used; it is refused clearly where it is missing, and tells nobody of it."""

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from wsi_lmc import backends
from wsi_lmc.backends import OpenVino, accelerated, used_by
from wsi_lmc.encoder import Encoder, Precision, load_encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.pooling import pooled

CPU = torch.device("cpu")
FLOORS: dict[Precision, float] = {"float32": 0.99999, "bfloat16": 0.999}


@pytest.fixture
def openvino(oracle: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """OpenVINO, without the package that reports its use."""
    monkeypatch.setitem(cast(dict[str, Any], sys.modules), "openvino_telemetry", None)
    return oracle("openvino")


def _tiles(count: int, side: int, seed: int = 0) -> Tensor:
    """Smooth colours rather than noise, so that tiles differ in what a network sees."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _cosine(found: Tensor, expected: Tensor) -> float:
    return float(torch.cosine_similarity(found, expected).min())


def test_torch_is_left_as_it_is() -> None:
    encoder = load_encoder("untrained:vit-demo@3", CPU)
    assert accelerated(encoder, "torch") is encoder
    assert used_by(encoder) == "torch"


@pytest.mark.parametrize("precision", FLOORS)
@pytest.mark.parametrize(
    ("name", "pooling", "side"),
    [
        ("vit-demo@3", "own", 64),
        ("vit-demo@3", "class-and-mean", 64),  # Virchow's
        ("vit_tiny_patch16_224", "own", 256),  # tiles are resized: the network takes 224 px alone
        ("test_resnet", "own", 96),
    ],
)
def test_features_are_torchs(openvino: ModuleType, name: str, pooling: Any, side: int, precision: Precision) -> None:
    reference = pooled(load_encoder(f"untrained:{name}", CPU, tile_px=64), pooling)
    encoder = accelerated(dataclasses.replace(reference, precision=precision), "openvino")
    for count in (5, 3, 1):  # one conversion serves them all
        tiles = _tiles(count, side, seed=count)
        assert _cosine(encoder.embed(tiles), reference.embed(tiles)) > FLOORS[precision]
    assert used_by(encoder) == "openvino"


def test_bfloat16_by_torch_on_the_cpu() -> None:
    exact = load_encoder("untrained:vit-demo@3", CPU, tile_px=64)
    tiles = _tiles(5, 64)
    found = load_encoder("untrained:vit-demo@3", CPU, "bfloat16", tile_px=64).embed(tiles)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact.embed(tiles))
    assert _cosine(found, exact.embed(tiles)) > FLOORS["bfloat16"]


@pytest.mark.parametrize("precision", FLOORS)
def test_neighbours_change_no_byte(openvino: ModuleType, precision: Precision) -> None:
    exact = load_encoder("untrained:vit-demo@3", CPU, precision, tile_px=64)
    encoder = accelerated(exact, "openvino")
    tiles = _tiles(12, 64)
    whole = torch.cat([encoder.embed(part) for part in tiles.split(4)])
    moved = torch.cat([encoder.embed(part) for part in tiles.roll(3, 0).split(4)])
    assert _cosine(whole, exact.embed(tiles)) > FLOORS["bfloat16"]
    assert torch.equal(moved, whole.roll(3, 0))


def _embed_twice(encoder: Encoder, exact: Encoder) -> None:
    for seed in (1, 2):
        tiles = _tiles(4, 64, seed)
        torch.testing.assert_close(encoder.embed(tiles), exact.embed(tiles), rtol=0, atol=0)
    assert used_by(encoder) == "torch"


@pytest.mark.parametrize("factor", [-1.0, 1.01, float("nan")])
def test_other_features_are_not_used(
    openvino: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, factor: float
) -> None:
    compile_network = OpenVino._compile

    def wrong(self: OpenVino, images: Tensor) -> Callable[[Tensor], Tensor]:
        compiled = compile_network(self, images)
        return lambda given: compiled(given) * factor

    monkeypatch.setattr(OpenVino, "_compile", wrong)
    exact = load_encoder("untrained:vit-demo@3", CPU, tile_px=64)
    with caplog.at_level(logging.WARNING):
        _embed_twice(accelerated(exact, "openvino"), exact)
    assert caplog.text.count("differ by") == 1


class _Sorted(torch.nn.Module):
    """What OpenVINO knows no operation for."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.svdvals(images[:, 0, :8, :8])


def test_a_network_that_cannot_be_converted_runs_in_torch(
    openvino: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    exact = load_encoder("untrained:vit-demo@3", CPU, tile_px=64)
    exact = dataclasses.replace(exact, module=_Sorted(), dim=8)
    with caplog.at_level(logging.WARNING):
        _embed_twice(accelerated(exact, "openvino"), exact)
    assert "cannot run untrained-vit-demo-3" in caplog.text
    assert "Conversion is failed for" in caplog.text


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast(dict[str, Any], sys.modules), "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'wsi-lmc\[openvino\]'"):
        accelerated(load_encoder("untrained:vit-demo@3", CPU), "openvino")


def test_it_is_for_the_cpu() -> None:
    elsewhere = dataclasses.replace(load_encoder("untrained:vit-demo@3", CPU), device=torch.device("cuda"))
    with pytest.raises(UsageError, match="the CPU"):
        accelerated(elsewhere, "openvino")


_REPORTER = """
from pathlib import Path
from types import SimpleNamespace
class Telemetry:
    def __init__(self, *args, app_name="", **kwargs):
        self.backend = SimpleNamespace(app_name=app_name)
        Path(__file__).with_name("reported").touch()
    def __getattr__(self, name):
        return lambda *args, **kwargs: None
"""

_EMBED = """
import torch
from wsi_lmc.backends import accelerated, used_by
from wsi_lmc.encoder import load_encoder
encoder = accelerated(load_encoder("untrained:vit-demo@3", torch.device("cpu"), tile_px=64), "openvino")
encoder.embed(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
print(used_by(encoder))
"""


@pytest.mark.slow
def test_nothing_is_reported_to_its_makers(openvino: ModuleType, tmp_path: Path) -> None:
    """OpenVINO tells its makers of every import and conversion unless it is kept from it."""
    package = tmp_path / "openvino_telemetry"
    (package / "backend").mkdir(parents=True)
    (package / "__init__.py").write_text(_REPORTER)
    (package / "backend" / "__init__.py").write_text("")
    (package / "backend" / "backend_ga4.py").write_text("")
    # before whatever brings OpenVINO, which may hold the real one
    home = str(Path(cast(str, openvino.__file__)).parents[1])
    paths = [str(tmp_path), str(Path(backends.__file__).parents[1]), home]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(tmp_path)}
    for code, reported in ((_EMBED, False), ("import openvino", True)):
        found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert (package / "reported").exists() is reported
        assert found.stdout.strip() == ("" if reported else "openvino")
