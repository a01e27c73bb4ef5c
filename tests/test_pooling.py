"""Virchow's features are its class token and its mean patch token; others keep their own."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.errors import UsageError
from wsi_lmc.pooling import ClassAndMean, pooled

CPU = resolve_device("cpu")
SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
GATED: dict[str, Any] = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}


def _stated(registers: int) -> dict[str, Any]:
    """What Virchow's config.json (no register tokens) and Virchow2's (four) say, at 56 px and small."""
    published = {"img_size": 56, "init_values": 1e-5, "num_classes": 0, "mlp_ratio": 5.3375, "global_pool": ""}
    return published | {"dynamic_img_size": True, "reg_tokens": registers} | SMALL


def _virchow(registers: int) -> torch.nn.Module:
    """A tiny network of Virchow's configuration: SwiGLU, layer scale, patches of 14 px, a class token."""
    torch.manual_seed(0)
    return timm.create_model("vit_huge_patch14_224", pretrained=False, **_stated(registers), **GATED).eval()


def _published(folder: Path, registers: int) -> Path:
    """The same as files of a repository: nothing in its configuration tells of gated layers."""
    about = {"input_size": [3, 56, 56], "fixed_input_size": False, "interpolation": "bicubic", "crop_pct": 1.0}
    scaling = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 0}
    named = {"architecture": "vit_huge_patch14_224", "model_args": _stated(registers)}
    (folder / "config.json").write_text(json.dumps(named | {"pretrained_cfg": about | scaling}))
    save_file(_virchow(registers).state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("registers", [0, 4])
def test_class_token_beside_the_mean_of_the_patches(registers: int) -> None:
    network = _virchow(registers)
    images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tokens = network.forward_features(images)  # pyright: ignore[reportCallIssue]  timm's networks have it
        found = ClassAndMean(network)(images)
    assert tokens.shape == (3, 1 + registers + 16, 32)
    torch.testing.assert_close(found[:, :32], tokens[:, 0])
    torch.testing.assert_close(found[:, 32:], tokens[:, 1 + registers :].mean(1))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("side", [56, 60])
def test_published_files_load_and_give_class_and_mean(registers: int, side: int, tmp_path: Path) -> None:
    """As ``hf-hub:paige-ai/Virchow`` (no registers) and ``Virchow2`` (four) lie in the Hub's cache."""
    encoder = pooled(load_encoder(f"local-dir:{_published(tmp_path, registers)}", CPU), "auto")
    assert (encoder.dim, encoder.name[-15:]) == (64, "-class-and-mean")
    tiles = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images = tiles.permute(0, 3, 1, 2).float() / 255
    if side % 14:  # sides that are no multiple of the patch are resized to the network's own
        images = torch.nn.functional.interpolate(images, size=(56, 56), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        tokens = _virchow(registers)((images - mean) / std)
    expected = torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(1)], 1)
    torch.testing.assert_close(encoder.embed(tiles), expected, rtol=1e-5, atol=1e-5)


def test_a_network_that_pools_nothing_has_no_feature_of_its_own(tmp_path: Path) -> None:
    encoder = load_encoder(str(_published(tmp_path, 0)), CPU)
    with pytest.raises(UsageError, match="gives all of its tokens"):
        pooled(encoder, "own")


def test_others_keep_their_own_feature_unless_told() -> None:
    encoder = load_encoder("untrained:vit-demo@3", CPU)
    assert pooled(encoder, "auto") is encoder
    assert pooled(encoder, "own") is encoder
    both = pooled(encoder, "class-and-mean")
    assert (both.dim, both.sha256) == (2 * encoder.dim, encoder.sha256)
    assert both.name == f"{encoder.name}-class-and-mean"
    assert both.embed(torch.zeros(2, 256, 256, 3, dtype=torch.uint8)).shape == (2, 2 * encoder.dim)


def test_a_network_without_class_token_is_refused() -> None:
    encoder = load_encoder("untrained:resnet18", CPU)
    with pytest.raises(UsageError, match="no class token"):
        pooled(encoder, "class-and-mean")
