"""StainFuser (Jewsbury et al. 2024, arXiv 2403.09302): diffusion that paints a tile in a reference's stain.

There is no text. A ControlNet shows the source tile to a Stable Diffusion 2.1 U-Net, and the reference, as latents of
its autoencoder, stands where the words of a prompt would: each latent pixel one word, widened by a learned projection.
Noise is taken away in 20 steps (PNDM), and the autoencoder shows the result.

The networks are diffusers' own, an extra of this package. Weights come from the user: a folder with the authors'
``checkpoint.safetensors`` (huggingface.co/R-J/StainFuser, Apache-2.0) and the three ``sd21b_*_config.json`` of
``src/configs`` in github.com/R-J96/stainFuser, all under their own names.

Two choices of ours: every tile starts from the same noise, so that its neighbours in a batch change nothing and a
second run gives the same pixels; and the reference is resized to the tiles (theirs: tiles to the reference).
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from wsi_lmc.errors import UsageError

WEIGHTS = "checkpoint.safetensors"
CONFIGS = {part: f"sd21b_{part}_config.json" for part in ("unet", "vae", "scheduler")}
_FROM = f"{WEIGHTS} of huggingface.co/R-J/StainFuser beside src/configs/*.json of github.com/R-J96/stainFuser"
_NETWORKS = ("AutoencoderKL", "ControlNetModel", "PNDMScheduler", "UNet2DConditionModel")
_AT_ONCE = 8  # tiles; the U-Net's memory grows with them
_WIDTHS = (16, 32, 96, 256)  # of the layers that show the source tile to the ControlNet


class StainFuser:
    """StainFuser with the user's weights as a normaliser of tiles."""

    def __init__(
        self, networks: nn.Module, scheduler: object, reference: UInt8[Tensor, "h w 3"], steps: int = 20, seed: int = 0
    ) -> None:
        """Take networks and scheduler from `load_networks`; ``seed`` decides the noise that every tile starts from."""
        self._networks: Any = networks.eval().requires_grad_(False).to(reference.device)
        self._scheduler: Any = scheduler
        self._reference = _images(reference.unsqueeze(0))
        self._steps, self._seed = steps, seed
        self._factor = 2 ** (len(self._networks.encoder.config.block_out_channels) - 1)

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Paint each tile anew, at its own size."""
        height, width = tiles.shape[1:3]
        with torch.inference_mode():
            spare = (-width % self._factor, -height % self._factor)
            images = functional.pad(_images(tiles), (0, spare[0], 0, spare[1]), mode="replicate")
            words, noise = self._start(images.shape[2], images.shape[3])
            shown = torch.cat([self._paint(part, words, noise) for part in images.split(_AT_ONCE)])
            levels = ((shown + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
        return levels[:, :, :height, :width].permute(0, 2, 3, 1).contiguous()

    def _start(self, height: int, width: int) -> tuple[Float32[Tensor, "1 n c"], Float32[Tensor, "1 c y x"]]:
        """The reference as words, and noise; drawn on the CPU, so that every device starts from the same."""
        generator = torch.Generator().manual_seed(self._seed)
        reference = functional.interpolate(self._reference, size=(height, width), mode="bilinear", antialias=True)
        found = self._networks.encoder.encode(reference).latent_dist
        drawn = torch.randn(found.mean.shape, generator=generator).to(found.mean)
        latents = (found.mean + found.std * drawn) * self._networks.encoder.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        return latents.flatten(2).transpose(1, 2), noise

    def _paint(self, images: Float32[Tensor, "b 3 h w"], words: Tensor, noise: Tensor) -> Float32[Tensor, "b 3 h w"]:
        control, predict = self._networks.conditioner, self._networks.noise_predictor
        count = len(images)
        seen, aimed = (part.encoder_projector(words).expand(count, -1, -1) for part in (control, predict))
        self._scheduler.set_timesteps(self._steps, device=images.device)
        latents = noise.expand(count, -1, -1, -1) * self._scheduler.init_noise_sigma
        for time in self._scheduler.timesteps:
            given = self._scheduler.scale_model_input(latents, time)
            down, middle = control(given, time, seen, controlnet_cond=images, return_dict=False)
            residual = predict(
                given,
                time,
                aimed,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                return_dict=False,
            )[0]
            latents = self._scheduler.step(residual, time, latents, return_dict=False)[0]
        encoder = self._networks.encoder
        return encoder.decode(latents / encoder.config.scaling_factor, return_dict=False)[0]


def load_networks(folder: Path) -> tuple[nn.Module, Any]:
    """Autoencoder, ControlNet and U-Net with the weights in ``folder``, and the scheduler of their noise.

    Raises:
        UsageError: diffusers is not installed, a file is missing or unreadable, or holds other networks.
    """
    _refuse_incomplete(folder)
    autoencoder, controlnet, pndm, unet = _classes()
    try:
        stated = {part: json.loads((folder / name).read_text(encoding="utf-8")) for part, name in CONFIGS.items()}
        weights = load_file(folder / WEIGHTS)
        with torch.device("meta"):  # five gigabytes of random weights would be made in vain
            predictor = unet.from_config(stated["unet"])
            control = controlnet.from_unet(
                predictor, conditioning_embedding_out_channels=_WIDTHS, load_weights_from_unet=False
            )
            encoder = autoencoder.from_config(stated["vae"])
            for part in (predictor, control):
                projector = nn.Linear(encoder.config.latent_channels, predictor.config.cross_attention_dim)
                part.add_module("encoder_projector", projector)
        networks = nn.ModuleDict({"encoder": encoder, "conditioner": control, "noise_predictor": predictor})
        networks.load_state_dict(weights, assign=True)
        return networks.float(), pndm.from_config(stated["scheduler"])
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder} holds no StainFuser ({said})", _FROM, "Download these files again.") from error


def _refuse_incomplete(folder: Path) -> None:
    missing = [name for name in (WEIGHTS, *CONFIGS.values()) if not (folder / name).is_file()]
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in (".pth", ".bin", ".ckpt", ".pt"))
    if WEIGHTS in missing and pickled:
        raise UsageError(f"{pickled[0]}, a pickle, in {folder}", _FROM, "Use the safetensors; pickles are never read.")
    if missing:
        raise UsageError(f"no {', no '.join(missing)} in {folder}", _FROM, "Give the folder that holds them.")


def _classes() -> list[Any]:
    """What is needed of diffusers, which takes seconds to import and is not installed with this package."""
    try:
        diffusers = import_module("diffusers")
        return [getattr(diffusers, name) for name in _NETWORKS]
    except (ImportError, RuntimeError) as error:  # the latter where diffusers lacks something itself
        raise UsageError(
            f"diffusers cannot be used ({str(error).strip().splitlines()[0]})",
            "the extra of StainFuser",
            "Run: pip install 'wsi-lmc[diffusion]'.",
        ) from error


def _images(tiles: UInt8[Tensor, "b h w 3"]) -> Float32[Tensor, "b 3 h w"]:
    """Images in [0, 1], as the authors give them to both the ControlNet and the autoencoder."""
    return tiles.permute(0, 3, 1, 2).float() / 255.0
