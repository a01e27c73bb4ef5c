"""Virchow's features are its class token and its mean patch token; others keep their own."""

from dataclasses import replace

import pytest
import timm
import torch

from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.errors import UsageError
from wsi_lmc.pooling import ClassAndMean, pooled

CPU = resolve_device("cpu")


def _virchow(registers: int) -> torch.nn.Module:
    """A tiny network of Virchow's configuration: SwiGLU, layer scale, patches of 14 px, a class token."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_huge_patch14_224", pretrained=False, num_classes=0, img_size=56, init_values=1e-5, depth=2, embed_dim=32,
        num_heads=2, mlp_ratio=5.3375, mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU,
        reg_tokens=registers, dynamic_img_size=True,
    ).eval()  # fmt: skip


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


def test_auto_knows_virchow_by_name_and_leaves_others_alone() -> None:
    encoder = replace(load_encoder("untrained:vit-demo@3", CPU), name="paige-ai-Virchow")
    both = pooled(encoder, "auto")
    assert (both.dim, both.sha256) == (2 * encoder.dim, encoder.sha256)
    assert both.name == "paige-ai-Virchow-class-and-mean"
    assert both.embed(torch.zeros(2, 256, 256, 3, dtype=torch.uint8)).shape == (2, 2 * encoder.dim)
    assert pooled(encoder, "own") is encoder
    other = replace(encoder, name="lmc-robust")
    assert pooled(other, "auto") is other
    assert pooled(other, "class-and-mean").dim == 2 * encoder.dim


def test_a_network_without_class_token_is_refused() -> None:
    encoder = load_encoder("untrained:resnet18", CPU)
    with pytest.raises(UsageError, match="no class token"):
        pooled(encoder, "class-and-mean")
