"""Networks that repaint a tile: StainNet (Kang et al. 2021) and StainGAN's generator (Shaban et al. 2019).

The architectures are the published ones, with their authors' parameter names, so that released weights load; weights
come from the user, as safetensors or as a plain state dict (``weights_only``: no code in the file is run).
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError  # only to recognise torch's refusal: nothing is unpickled here
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wsi_lmc.errors import UsageError

_HALF = 0.5


class StainNet(nn.Module):
    """1 x 1 convolutions: a colour map that was distilled from a StainGAN."""

    def __init__(self, layers: int = 3, channels: int = 32) -> None:
        super().__init__()
        widths = [3, *(channels for _ in range(layers - 1)), 3]
        parts: list[nn.Module] = []
        for wide, next_wide in pairwise(widths):
            parts += [nn.Conv2d(wide, next_wide, 1), nn.ReLU(inplace=True)]
        self.rgb_trans = nn.Sequential(*parts[:-1])

    def forward(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
        """Images in [-1, 1]."""
        return self.rgb_trans(images)


class _Block(nn.Module):
    """Two reflected 3 x 3 convolutions with instance norm, around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        conv = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.conv_block = nn.Sequential(*conv, nn.ReLU(inplace=True), *again)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.conv_block(images)


class StainGan(nn.Module):
    """CycleGAN's ResNet generator with nine blocks."""

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), *_norm_relu(nn.Conv2d(3, width, 7), width)]
        for wide in (width, 2 * width):
            parts += _norm_relu(nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1), 2 * wide)
        parts += [_Block(4 * width) for _ in range(blocks)]
        for wide in (4 * width, 2 * width):
            half = wide // 2
            parts += _norm_relu(nn.ConvTranspose2d(wide, half, 3, stride=2, padding=1, output_padding=1), half)
        self.model = nn.Sequential(*parts, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
        """Images in [-1, 1], sides multiples of 4."""
        return self.model(images)


def _norm_relu(convolution: nn.Module, width: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]


class Generator:
    """A network with the user's weights as a normaliser of tiles."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network.eval().requires_grad_(False).to(device)

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Repaint each tile."""
        with torch.inference_mode():
            images = (tiles.permute(0, 3, 1, 2).float() / 255.0 - _HALF) / _HALF
            shown = self._network(images) * _HALF + _HALF
            return (shown * 255.0).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def load_generator(build: Callable[[], nn.Module], weights: Path, device: torch.device) -> Generator:
    """A generator with the weights in a file, whose names and shapes must all match.

    Raises:
        UsageError: no such file, a file that holds more than tensors, or weights of another network.
    """
    network = build()
    found = dict(filter(None, map(_as_published, _read_weights(weights).items())))
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        said = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UsageError(
            f"{weights.name} holds weights of another network ({said[:150]})",
            f"those of {type(network).__name__} as published",
            "Check --normalise and --weights.",
        ) from error
    return Generator(network, device)


def _as_published(item: tuple[str, Tensor]) -> tuple[str, Tensor] | None:
    """A parameter under its published name, from training scripts that differ in what computes nothing here.

    DataParallel puts "module." in front. StainGAN's script trains with dropout unless told not to, which moves the
    second convolution of a block from place 5 to 6. Before PyTorch 0.4, instance norm kept running statistics that it
    never used.
    """
    name, value = item
    if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked"):
        return None
    return name.removeprefix("module.").replace("conv_block.6.", "conv_block.5."), value


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"weights {path.name} cannot be read ({str(error).splitlines()[0][:150]})",
            "safetensors, or a state dict that loads with weights_only=True",
            "Save it again with safetensors.torch.save_file; do not load files you do not trust.",
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UsageError(f"{path.name} holds no state dict", "names and tensors", "Save model.state_dict() alone.")
    return found
