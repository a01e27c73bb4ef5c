"""Encoders: built from scratch for training, saved for timm, loaded from anywhere for embedding, published on request.

``network`` builds them, ``folder`` writes what timm reads, ``card`` describes it, ``loading`` reads it and everything
else that timm knows, ``hub`` uploads it.
"""

from wsi_lmc.encoder.card import TrainingFacts, write_card
from wsi_lmc.encoder.folder import ENCODER_FOLDER, EncoderMetadata, save_encoder
from wsi_lmc.encoder.loading import Encoder, Precision, computes_bfloat16, load_encoder, resolve_device, visible_gpus
from wsi_lmc.encoder.network import (
    Architecture,
    EncoderConfig,
    build_encoder,
    embedding_width,
    scale_input,
    seeded,
    weights_sha256,
)

__all__ = [
    "ENCODER_FOLDER",
    "Architecture",
    "Encoder",
    "EncoderConfig",
    "EncoderMetadata",
    "Precision",
    "TrainingFacts",
    "build_encoder",
    "computes_bfloat16",
    "embedding_width",
    "load_encoder",
    "resolve_device",
    "save_encoder",
    "scale_input",
    "seeded",
    "visible_gpus",
    "weights_sha256",
    "write_card",
]
