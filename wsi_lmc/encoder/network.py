"""Networks with random weights, the scaling of their input, and the fingerprint of their weights."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import timm
import torch
from annotated_doc import Doc
from jaxtyping import Float
from torch import Tensor, nn

from wsi_lmc.errors import UsageError

INPUT_MEAN = (0.5, 0.5, 0.5)
INPUT_STD = (0.5, 0.5, 0.5)
Architecture = Literal["vit-tiny", "vit-mini", "vit-demo"]

_VIT_TINY = "vit_tiny_patch16_224"
_TINY_WIDTH = 192
OVERRIDES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit-tiny": MappingProxyType({"patch_size": 16}),  # 5,535,936 parameters at 256 px: the paper's encoder
        "vit-mini": MappingProxyType({"patch_size": 16, "embed_dim": 64, "depth": 4, "num_heads": 2}),
        "vit-demo": MappingProxyType({"patch_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 2}),
    }
)
"""What each of our architectures changes of timm's smallest vision transformer."""


@dataclass(frozen=True)
class EncoderConfig:
    """Which network is trained, always from scratch."""

    architecture: Annotated[
        Architecture,
        Doc(
            "Network trained from scratch: vit-tiny is the paper's (12 blocks, 192 features, 5.5 M parameters); "
            "vit-demo (4 blocks, 64 features, patches of 32 px) trains on two CPU cores within minutes and is for "
            "demonstrations; vit-mini is the same with the paper's patches of 16 px, for small tiles."
        ),
    ] = "vit-tiny"


def build_encoder(config: EncoderConfig, tile_px: int, seed: int) -> nn.Module:
    """A network with random weights that depend on ``seed`` alone; the caller's random state is left as it was.

    It takes float32 (b, 3, tile_px, tile_px), scaled by `scale_input`, and gives the class token's (b, d) features.

    Raises:
        UsageError: the tile is no multiple of the architecture's patch.
    """
    overrides = OVERRIDES[config.architecture]
    if tile_px % overrides["patch_size"]:
        raise UsageError(
            f"tiles of {tile_px} px for {config.architecture}",
            f"a multiple of its patch, {overrides['patch_size']} px",
            "Cut tiles of another size.",
        )
    # timm's own statement (224 px, crop 0.9) would make a user's transform resize and crop wrongly
    data = {"input_size": (3, tile_px, tile_px), "mean": INPUT_MEAN, "std": INPUT_STD, "crop_pct": 1.0}
    stated = data | {"crop_mode": "center", "interpolation": "bilinear"}
    options = {"pretrained_cfg_overlay": stated, "img_size": tile_px, "num_classes": 0, **overrides}
    return seeded(lambda: timm.create_model(_VIT_TINY, **options), seed)


def embedding_width(architecture: Architecture) -> int:
    """Features of one of our architectures."""
    return int(OVERRIDES[architecture].get("embed_dim", _TINY_WIDTH))


def scale_input(
    images: Float[Tensor, "b 3 h w"], mean: tuple[float, ...] = INPUT_MEAN, std: tuple[float, ...] = INPUT_STD
) -> Float[Tensor, "b 3 h w"]:
    """Bring images in [0, 1] to the range a network expects: (x - mean) / std per channel."""
    shift = images.new_tensor(mean).view(1, 3, 1, 1)
    return (images - shift) / images.new_tensor(std).view(1, 3, 1, 1)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights, in order of name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Run ``build``, which draws from torch's global CPU generator, and restore that generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA, which is not restored
        return build()
