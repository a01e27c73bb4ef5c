"""Encoders from anywhere, frozen, for embedding.

An encoder is named by a *spec*:

``CKPT``             a checkpoint folder written by ``train`` (or its ``encoder/`` folder)
``local-dir:PATH``   a folder holding timm's ``config.json`` and ``model.safetensors``
``hf-hub:OWNER/NAME``  the same two files on the Hugging Face Hub
``NAME``             a timm model name, with timm's pretrained weights
``untrained:NAME@SEED``  random weights (own architecture or timm name; seed 0 where left out): a floor to compare with

Weights of folders and of the Hub are read from safetensors only; no code that comes with a model is ever run.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float, Shaped, UInt8
from safetensors import SafetensorError, safe_open
from timm.data.config import resolve_model_data_config
from timm.layers import PatchEmbed, SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional

from wsi_lmc.encoder.folder import CONFIG, ENCODER_FOLDER, METADATA, WEIGHTS, Mode
from wsi_lmc.encoder.network import (
    OVERRIDES,
    Architecture,
    EncoderConfig,
    build_encoder,
    scale_input,
    seeded,
    weights_sha256,
)
from wsi_lmc.errors import StoreError, UsageError

Precision = Literal["float32", "bfloat16"]
Runner = Callable[[Tensor], Tensor]  # what `Encoder.features` is: images to features

_FEED_FORWARD = ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder in evaluation mode, with what a feature store records of it.

    ``name`` holds no path; ``sha256`` covers the weights (see `weights_sha256`); ``trained_mpp`` (microns per pixel)
    is None where it is unknown; ``input_px`` is the side at which the network was built, ``fixed_input`` whether it
    takes no other, and ``patch`` what a side must be a multiple of; ``precision`` is that of the network's computation,
    features and weights stay float32. ``runner`` computes `features` in torch's place, where there is one; ``spec`` is
    what the encoder was loaded by, a folder by its absolute path.
    """

    name: str
    architecture: str
    dim: int
    sha256: str
    mode: Mode
    trained_mpp: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_px: int
    fixed_input: bool
    module: nn.Module
    device: torch.device
    precision: Precision = "float32"
    patch: int = 1
    runner: Runner | None = None
    spec: str | None = None

    @classmethod
    def load(
        cls, name: str | Path, device: str = "auto", precision: Precision = "float32", tile_px: int = 256
    ) -> "Encoder":
        """Load an encoder, frozen.

        Args:
            name: a checkpoint folder, a timm model name, ``local-dir:PATH``, ``hf-hub:OWNER/NAME`` or
                ``untrained:NAME@SEED``.
            device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
            precision: of the network's computation; features are float32 in any case.
            tile_px: side of the tiles, in pixels, for an untrained network of ours; all others know theirs.

        Raises:
            UsageError: nothing of that name, no weights or no connection to fetch them, or no such device.
            StoreError: the folder is there and damaged.
        """
        return load_encoder(str(name), resolve_device(device), precision, tile_px)

    def embed(self, tiles: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Float32 features of RGB tiles, on the encoder's device.

        Tiles travel to the device as uint8. They are resized (bilinear, antialiased) only where the network cannot
        take their size.
        """
        with torch.inference_mode():
            images = tiles.to(self.device, non_blocking=True)
            if not self._takes(images.shape[1], images.shape[2]):
                images = images.permute(0, 3, 1, 2).float() / 255.0
                size = (self.input_px, self.input_px)
                images = functional.interpolate(images, size=size, mode="bilinear", antialias=True)
                images = images.permute(0, 2, 3, 1)
            return (self.runner or self.features)(images)

    def features(self, images: Shaped[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Features, by torch, of images on the device in a size that the network takes: uint8, or float in [0, 1]."""
        images = images.permute(0, 3, 1, 2)
        if images.dtype == torch.uint8:
            images = images.float() / 255.0
        images = scale_input(images, self.mean, self.std)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.module(images).float()

    def _takes(self, height: int, width: int) -> bool:
        if self.fixed_input:
            return height == width == self.input_px
        return height % self.patch == 0 and width % self.patch == 0


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is CUDA where there is one, otherwise the CPU.

    Raises:
        UsageError: no such device here.
    """
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    known = ["cpu", *(["cuda", *cuda] if cuda else [])]
    if name not in ("auto", *known):
        raise UsageError(f"device {name!r}", f"one of auto, {', '.join(known)}", "Name a device of this machine.")
    return torch.device("cuda" if name == "auto" and cuda else "cpu" if name == "auto" else name)


def visible_gpus() -> list[str]:
    """This machine's GPUs, as CUDA_VISIBLE_DEVICES names them; none where there is no CUDA."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    stated = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return stated[:count] if len(stated) >= count else [str(number) for number in range(count)]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16; elsewhere it is emulated, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.11 or so
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def load_encoder(spec: str, device: torch.device, precision: Precision = "float32", tile_px: int = 256) -> Encoder:
    """The encoder that ``spec`` names (see the top of this file), ready to embed on ``device``.

    ``tile_px`` is the input size of an *untrained* own architecture; every other encoder knows its own.

    Raises:
        UsageError: nothing of that name, no weights, or no connection to fetch them.
        StoreError: the folder is there and damaged.
    """
    absolute = str(Path(spec).resolve()) if Path(spec).is_dir() else spec
    return replace(_load(spec, device, precision, tile_px), spec=absolute)


def _load(spec: str, device: torch.device, precision: Precision, tile_px: int) -> Encoder:
    source, _, rest = spec.partition(":")
    if source == "untrained":
        return _untrained(rest, device, precision, tile_px)
    if source == "hf-hub":
        return _from_folder(_fetch(rest), device, precision, name=rest)
    if source == "local-dir" or Path(spec).is_dir() or "/" in spec:
        return _from_folder(Path(rest if source == "local-dir" else spec), device, precision, name=None)
    model = _attempt(lambda: timm.create_model(spec, pretrained=True, num_classes=0), spec)
    return _describe(model, {}, spec, device, precision)


def _untrained(rest: str, device: torch.device, precision: Precision, tile_px: int) -> Encoder:
    name, _, seed = rest.partition("@")
    if not re.fullmatch(r"[0-9]{0,9}", seed):
        raise UsageError(f"seed {seed!r} in 'untrained:{rest}'", "a whole number after @", "Write untrained:NAME@0.")
    label = f"untrained-{name}-{int(seed or 0)}"
    if name in OVERRIDES:
        model = build_encoder(EncoderConfig(cast(Architecture, name)), tile_px, int(seed or 0))
        return _describe(model, {"architecture": name}, label, device, precision)
    model = _attempt(lambda: seeded(lambda: timm.create_model(name, num_classes=0), int(seed or 0)), name)
    return _describe(model, {}, label, device, precision)


def _from_folder(folder: Path, device: torch.device, precision: Precision, name: str | None) -> Encoder:
    if (folder / ENCODER_FOLDER / CONFIG).is_file():
        folder = folder / ENCODER_FOLDER
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UsageError(
                f"no {file} in {folder}",
                "a finished checkpoint folder, or timm's config.json with model.safetensors",
                "Give the folder that train wrote; a training that was cut off must be resumed first.",
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        options = {"pretrained": True, "num_classes": 0, **_unstated(config["architecture"], folder / WEIGHTS)}
        model = _attempt(lambda: timm.create_model(f"local-dir:{folder}", **options), str(folder))
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise StoreError(f"{folder} is damaged ({error})", "readable weights", "Copy or train it again.") from error
    return _describe(model, config.get(METADATA, {}), name, device, precision)


def _unstated(architecture: str, weights: Path) -> dict[str, Any]:
    """What published configurations leave to their reader, seen from the weights' shapes.

    Virchow, Virchow2 and UNI2-h have gated feed-forward layers. JSON has no word for a layer's class, so their model
    cards tell users to pass it.
    """
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
        shapes = [file.get_slice(name).get_shape() for name in _FEED_FORWARD if name in names]
    gated = len(shapes) == len(_FEED_FORWARD) and shapes[0][0] == 2 * shapes[1][1]
    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if gated and architecture.startswith("vit_") else {}


def _fetch(repository: str) -> Path:
    """The Hub repository's configuration and safetensors, in the local cache; nothing else is downloaded."""
    name, _, revision = repository.partition("@")
    files = [CONFIG, WEIGHTS]
    return Path(_attempt(lambda: snapshot_download(name, revision=revision or None, allow_patterns=files), repository))


def _attempt[T](load: Callable[[], T], what: str) -> T:
    """Turn the two ways in which fetching fails into errors a user can act on."""
    try:
        return load()
    except OSError as error:  # includes every connection failure and refusal of huggingface_hub
        raise UsageError(
            f"the weights of {what!r} could not be fetched ({str(error).splitlines()[0]})",
            "a connection to the Hugging Face Hub, or weights in its local cache",
            "Check the name and the connection, log in for gated weights, or give a local folder.",
        ) from error
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"encoder {what!r} ({str(error).splitlines()[0]})",
            "a checkpoint folder, a timm model name, local-dir:PATH, hf-hub:OWNER/NAME or untrained:NAME",
            "Check the spelling; timm.list_models() lists timm's names.",
        ) from error


def _describe(
    model: nn.Module, own: Mapping[str, Any], name: str | None, device: torch.device, precision: Precision
) -> Encoder:
    """Freeze the network and collect what is known about it; ``own`` is the "wsi_lmc" part of its configuration."""
    sha256 = weights_sha256(model)
    if own.get("weights_sha256", sha256) != sha256:
        stated = str(own["weights_sha256"])[:16]
        raise StoreError(f"weights with SHA-256 {sha256[:16]}", stated, "Copy or train them again.")
    data = resolve_model_data_config(model)
    mode: Mode = own["mode"] if own.get("mode") in ("paper", "robust") else "none"
    mpp = own.get("trained_mpp")
    name = name or (f"lmc-{mode}-{sha256[:8]}" if own else f"local-{sha256[:8]}")
    config = cast(dict[str, Any], model.pretrained_cfg)
    return Encoder(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", name),
        architecture=str(own.get("architecture") or config["architecture"]),
        dim=cast(int, getattr(model, "head_hidden_size", None) or model.num_features),
        sha256=sha256,
        mode=mode,
        trained_mpp=float(mpp) if isinstance(mpp, int | float) else None,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        input_px=int(data["input_size"][1]),
        fixed_input=bool(config.get("fixed_input_size", False)),
        module=model.eval().requires_grad_(False).to(device),
        device=device,
        precision=precision,
        patch=_patch_of(model),
    )


def _patch_of(model: nn.Module) -> int:
    """What the sides of the network's input must be multiples of, where it cuts them into patches itself."""
    embedding = getattr(model, "patch_embed", None)
    if not isinstance(embedding, PatchEmbed) or embedding.dynamic_img_pad:
        return 1
    return max(cast(tuple[int, int], embedding.patch_size))
