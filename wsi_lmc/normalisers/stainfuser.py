"""StainFuser (Jewsbury et al. 2024): a conditional latent diffusion that paints a tile in a reference's colours.

A ControlNet guides Stable Diffusion with the tile itself, and the reference steers it. Weights are the user's: a folder
in the layout of ``diffusers``, read from safetensors only. Needs ``pip install wsi-lmc[stainfuser]`` and a GPU to be of
use: seconds a tile even there.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError

_STEPS = 20


class StainFuser:
    """A ``diffusers`` pipeline folder as a normaliser; the same tile and seed give the same picture."""

    def __init__(self, folder: Path, reference: UInt8[Tensor, "h w 3"], device: torch.device, seed: int = 0) -> None:
        try:
            diffusers = import_module("diffusers")
        except ImportError as error:
            raise UsageError(
                "the package diffusers is not installed", "it, for StainFuser", "pip install 'wsi-lmc[stainfuser]'"
            ) from error
        if not (folder / "model_index.json").is_file():
            raise UsageError(f"no model_index.json in {folder}", "a diffusers pipeline folder", "Check --weights.")
        self._pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, safety_checker=None
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._reference, self._seed = _to_image(reference), seed

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Repaint each tile; its size must be a multiple of 8."""
        shown = [self._paint(tile) for tile in tiles]
        return torch.from_numpy(np.stack(shown)).to(tiles.device)

    def _paint(self, tile: UInt8[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        generator = torch.Generator("cpu").manual_seed(self._seed)
        height, width = tile.shape[:2]
        found = self._pipeline(
            prompt="", image=self._reference, control_image=_to_image(tile), height=height, width=width,
            strength=1.0, guidance_scale=1.0, num_inference_steps=_STEPS, generator=generator, output_type="np",
        )  # fmt: skip
        return (found.images[0] * 255.0).round().astype(np.uint8)


def _to_image(tile: UInt8[Tensor, "h w 3"]) -> Any:  # noqa: ANN401  a PIL image, which diffusers takes
    return import_module("PIL.Image").fromarray(tile.cpu().numpy())
