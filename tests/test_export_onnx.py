"""An encoder as ONNX gives torch's features in another runtime, from the bytes of tiles alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from wsi_lmc.encoder import EncoderConfig, EncoderMetadata, build_encoder, load_encoder, save_encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.export.onnx import export_onnx

CPU = torch.device("cpu")


@pytest.fixture
def runtime(oracle: Callable[[str], ModuleType]) -> ModuleType:
    oracle("onnxscript")
    return oracle("onnxruntime")


@pytest.mark.parametrize(("name", "trained_mpp"), [("checkpoint", "0.5"), ("untrained:test_resnet", "")])
def test_another_runtime_gives_the_same_features(
    runtime: ModuleType, tmp_path: Path, name: str, trained_mpp: str
) -> None:
    network = build_encoder(EncoderConfig("vit-demo"), 64, 3)
    save_encoder(tmp_path / "checkpoint" / "encoder", network, EncoderMetadata("vit-demo", "paper", 0.5, steps=1))
    encoder = load_encoder(str(tmp_path / name) if name == "checkpoint" else name, CPU, tile_px=64)
    path = tmp_path / "new" / "encoder.onnx"
    export_onnx(encoder, path)
    assert [found.name for found in path.parent.iterdir()] == ["encoder.onnx"]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    px = encoder.input_px
    for count in (1, 5):
        tiles = np.random.default_rng(count).integers(0, 256, (count, px, px, 3), dtype=np.uint8)
        (found,) = session.run(["features"], {"tiles": tiles})
        np.testing.assert_allclose(found, encoder.embed(torch.from_numpy(tiles)).numpy(), atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert (about["wsi_lmc_encoder"], about["sha256"]) == (encoder.name, encoder.sha256)
    assert about["trained_mpp"] == trained_mpp


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export_onnx(load_encoder("untrained:vit-demo", CPU, tile_px=64), path)
    assert path.read_text() == "mine"


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """In a process of its own, which cannot import them."""
    network = build_encoder(EncoderConfig("vit-demo"), 64, 0)
    save_encoder(tmp_path / "encoder", network, EncoderMetadata("vit-demo", "paper", 0.5, steps=0))
    code = "import sys; sys.modules |= {'onnx': None, 'onnxscript': None}; from wsi_lmc.cli import main; main()"
    command = ["export", str(tmp_path), "--to", "onnx", "-o", str(tmp_path / "encoder.onnx")]
    found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, ""), found.stderr
    assert "pip install 'wsi-lmc[onnx]'" in found.stderr
    assert "Traceback" not in found.stderr
