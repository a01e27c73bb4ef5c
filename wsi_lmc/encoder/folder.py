"""The folder that timm reads: ``config.json`` and ``model.safetensors``, and what we state in the former."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timm.data.config import resolve_model_data_config
from timm.models import save_for_hf
from torch import nn

from wsi_lmc.encoder.network import OVERRIDES, weights_sha256

ENCODER_FOLDER = "encoder"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
METADATA = "wsi_lmc"
UNKNOWN = "unknown"
Mode = Literal["paper", "robust", "none"]


@dataclass(frozen=True)
class EncoderMetadata:
    """What is stored beside the weights of an encoder trained here.

    ``trained_mpp`` is in microns per pixel; ``license`` is the licence of the weights, which depends on the slides.
    """

    architecture: str
    mode: Mode
    trained_mpp: float
    steps: int
    license: str = UNKNOWN


def save_encoder(folder: Path, model: nn.Module, metadata: EncoderMetadata) -> str:
    """Write ``model.safetensors`` and ``config.json`` so that timm alone rebuilds the very same network.

    ``model`` comes from `build_encoder`, so its configuration states this tile size, no crop, mean and std 0.5. What
    timm has no field for stands under "wsi_lmc". Returns the weights' SHA-256.
    """
    tile_px = int(resolve_model_data_config(model)["input_size"][1])
    sha256 = weights_sha256(model)
    own = dataclasses.asdict(metadata) | {"tile_px": tile_px, "weights_sha256": sha256}
    stated = {"tag": f"lmc_{metadata.mode}", "license": metadata.license}
    save_for_hf(
        model,
        str(folder),
        model_config={"pretrained_cfg": stated, METADATA: own},
        model_args={"img_size": tile_px, "num_classes": 0, **OVERRIDES[metadata.architecture]},
        safe_serialization=True,
    )
    return sha256
