"""Encoders: the paper's network, exact round trips through timm alone, specs, embedding."""

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from wsi_lmc.encoder import (
    Encoder,
    EncoderConfig,
    EncoderMetadata,
    build_encoder,
    load_encoder,
    resolve_device,
    save_encoder,
    scale_input,
    weights_sha256,
)
from wsi_lmc.errors import StoreError, UsageError

CPU = torch.device("cpu")
DEMO = EncoderConfig("vit-demo")
METADATA = EncoderMetadata("vit-demo", "robust", trained_mpp=0.5, steps=12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with a 96-px vit-demo encoder; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("ckpt")
    save_encoder(folder / "encoder", build_encoder(DEMO, 96, seed=5), METADATA)
    return folder


def _tiles(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in (source / "encoder").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_vit_tiny_is_the_papers_network() -> None:
    model = build_encoder(EncoderConfig(), 256, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_535_936
    assert model(torch.zeros(1, 3, 256, 256)).shape == (1, 192)
    data = resolve_model_data_config(model)
    assert (data["mean"], data["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_seed_alone_decides_the_weights_and_the_callers_generator_is_untouched() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = weights_sha256(build_encoder(DEMO, 64, seed=7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(999)
    assert weights_sha256(build_encoder(DEMO, 64, seed=7)) == first
    assert weights_sha256(build_encoder(DEMO, 64, seed=8)) != first


def test_tile_must_be_a_multiple_of_the_patch() -> None:
    with pytest.raises(UsageError, match="multiple of its patch, 32 px"):
        build_encoder(DEMO, 100, seed=0)


@pytest.mark.parametrize(("architecture", "tile_px"), [("vit-tiny", 256), ("vit-demo", 96)])
def test_timm_alone_rebuilds_the_encoder_bit_for_bit(architecture: str, tile_px: int, tmp_path: Path) -> None:
    model = build_encoder(EncoderConfig(architecture), tile_px, seed=3).eval()  # pyright: ignore[reportArgumentType]  # parametrised Literal
    save_encoder(tmp_path, model, EncoderMetadata(architecture, "paper", 0.25, 100, license="cc-by-4.0"))
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.rand(2, 3, tile_px, tile_px)
    assert torch.equal(again(images), model(images))
    data = resolve_model_data_config(again)
    assert data["input_size"] == (3, tile_px, tile_px)
    assert (data["crop_pct"], data["crop_mode"], data["interpolation"]) == (1.0, "center", "bilinear")
    assert (*data["mean"], *data["std"]) == (0.5,) * 6
    transform = create_transform(**data, is_training=False)
    tile = _tiles(1, tile_px, tile_px)
    as_user = transform(Image.fromarray(tile[0].numpy()))  # pyright: ignore[reportCallIssue]  # timm may return a tuple
    ours = scale_input(tile.permute(0, 3, 1, 2).float() / 255.0)
    torch.testing.assert_close(as_user, ours[0], rtol=0, atol=1e-6)  # a user's transform neither resizes nor crops


def test_written_configuration_is_complete_and_holds_no_path(checkpoint: Path) -> None:
    text = (checkpoint / "encoder" / "config.json").read_text()
    assert str(checkpoint) not in text
    config = json.loads(text)
    assert config["wsi_lmc"] | {"weights_sha256": ""} == {
        "architecture": "vit-demo",
        "mode": "robust",
        "trained_mpp": 0.5,
        "steps": 12,
        "license": "unknown",
        "tile_px": 96,
        "weights_sha256": "",
    }
    assert config["pretrained_cfg"]["fixed_input_size"] is True
    assert (config["pretrained_cfg"]["tag"], config["pretrained_cfg"]["license"]) == ("lmc_robust", "unknown")
    assert not {"url", "hf_hub_id", "file", "source"} & set(config["pretrained_cfg"])


def test_checkpoint_folder_encoder_folder_and_local_dir_are_one_encoder(checkpoint: Path) -> None:
    whole = load_encoder(str(checkpoint), CPU)
    for spec in (str(checkpoint / "encoder"), f"local-dir:{checkpoint / 'encoder'}", f"local-dir:{checkpoint}"):
        other = load_encoder(spec, CPU)
        assert (other.name, other.sha256) == (whole.name, whole.sha256)
    assert (whole.architecture, whole.dim, whole.mode, whole.trained_mpp, whole.input_px) == (
        "vit-demo",
        64,
        "robust",
        0.5,
        96,
    )
    assert whole.name == f"lmc-robust-{whole.sha256[:8]}"
    assert whole.sha256 == weights_sha256(build_encoder(DEMO, 96, seed=5))
    assert not whole.module.training
    assert not any(parameter.requires_grad for parameter in whole.module.parameters())


def test_embedding_equals_the_plain_computation(checkpoint: Path) -> None:
    encoder = load_encoder(str(checkpoint), CPU)
    tiles = _tiles(3, 96, 96)
    expected = torch.stack([encoder.module((tile.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5)[0] for tile in tiles])
    features = encoder.embed(tiles)
    assert features.dtype == torch.float32
    assert features.shape == (3, encoder.dim)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_tiles_of_another_size_are_resized_for_a_fixed_network_only(checkpoint: Path) -> None:
    fixed = load_encoder(str(checkpoint), CPU)
    tiles = _tiles(2, 192, 128)
    smaller = torch.nn.functional.interpolate(
        tiles.permute(0, 3, 1, 2).float(), size=(96, 96), mode="bilinear", antialias=True
    )
    with torch.inference_mode():
        expected = fixed.module((smaller / 255 - 0.5) / 0.5)
    torch.testing.assert_close(fixed.embed(tiles), expected, rtol=1e-4, atol=1e-4)

    free = load_encoder("untrained:test_resnet", CPU)
    assert not free.fixed_input
    assert not torch.equal(free.embed(tiles), free.embed(tiles[:, :96]))
    direct = free.module(scale_input(tiles.permute(0, 3, 1, 2).float() / 255, free.mean, free.std))
    torch.testing.assert_close(free.embed(tiles), direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit-demo", "test_vit", "test_resnet", "mobilenetv3_small_050"])
def test_untrained_encoders_state_their_true_dimension_and_depend_on_the_seed(name: str) -> None:
    def load(spec: str) -> Encoder:
        return load_encoder(spec, CPU, tile_px=64)

    encoder = load(f"untrained:{name}")
    assert encoder.embed(_tiles(2, 64, 64)).shape == (2, encoder.dim)
    assert encoder.name == f"untrained-{name}-0"
    assert (encoder.mode, encoder.trained_mpp) == ("none", None)
    assert load(f"untrained:{name}@0").sha256 == encoder.sha256
    assert load(f"untrained:{name}@1").sha256 != encoder.sha256


def test_weights_changed_in_place_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "flipped")
    weights = load_file(folder / "model.safetensors")
    weights["norm.bias"][3] += 1e-6
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(StoreError, match="SHA-256"):
        load_encoder(str(folder), CPU)


def test_torn_weights_and_configuration_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "torn")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(StoreError, match="damaged"):
        load_encoder(str(folder), CPU)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text('{"architecture":')
    with pytest.raises(StoreError, match="damaged"):
        load_encoder(str(folder), CPU)


def test_pickled_weights_are_never_read(checkpoint: Path, tmp_path: Path) -> None:
    folder = _copy(checkpoint, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no model\.safetensors"):
        load_encoder(str(folder), CPU)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/folder", "no config.json in no/such/folder"),
        ("local-dir:nowhere", "no config.json in nowhere"),
        ("vit_tinny_patch16_224", "Unknown model"),
        ("untrained:vit-tinny", "Unknown model"),
        ("untrained:vit-demo@x", "whole number after @"),
        ("s3:bucket", "s3:bucket"),
    ],
)
def test_a_wrong_spec_says_what_to_write(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_encoder(spec, CPU)


@pytest.mark.parametrize("spec", ["vit_tiny_patch16_224", "hf-hub:wsi-lmc-tests/absent"])
def test_offline_is_a_clear_error(spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="could not be fetched"):
        load_encoder(spec, CPU)


def test_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "gpu", "meta"):
        with pytest.raises(UsageError, match="auto, cpu"):
            resolve_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu(checkpoint: Path) -> None:
    tiles = _tiles(5, 96, 96)
    reference = load_encoder(str(checkpoint), CPU).embed(tiles)
    cuda = load_encoder(str(checkpoint), torch.device("cuda"))
    for encoder, floor in ((cuda, 0.9999), (dataclasses.replace(cuda, precision="bfloat16"), 0.999)):
        features = encoder.embed(tiles).cpu()
        assert features.dtype == torch.float32
        assert torch.cosine_similarity(features, reference).min() > floor
