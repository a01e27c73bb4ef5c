"""Encoders: built from scratch for training, saved for timm, loaded from anywhere for embedding.

An encoder is named by a *spec*:

``CKPT``             a checkpoint folder written by ``train`` (or its ``encoder/`` folder)
``local-dir:PATH``   a folder holding timm's ``config.json`` and ``model.safetensors``
``hf-hub:OWNER/NAME``  the same two files on the Hugging Face Hub
``NAME``             a timm model name, with timm's pretrained weights
``untrained:NAME@SEED``  random weights (own architecture or timm name; seed 0 where left out): a floor to compare with

Weights of folders and of the Hub are read from safetensors only; no code that comes with a model is ever run.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

import timm
import torch
from annotated_doc import Doc
from huggingface_hub import snapshot_download
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from timm.data.config import resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional

from wsi_lmc.errors import StoreError, UsageError

ENCODER_FOLDER = "encoder"
INPUT_MEAN = (0.5, 0.5, 0.5)
INPUT_STD = (0.5, 0.5, 0.5)
Mode = Literal["paper", "robust", "none"]
Architecture = Literal["vit-tiny", "vit-demo"]

_WEIGHTS = "model.safetensors"
_METADATA = "wsi_lmc"
_VIT_TINY = "vit_tiny_patch16_224"
_OVERRIDES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit-tiny": MappingProxyType({"patch_size": 16}),  # 5,535,936 parameters at 256 px: the paper's encoder
        "vit-demo": MappingProxyType({"patch_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 2}),
    }
)


@dataclass(frozen=True)
class EncoderConfig:
    """Which network is trained, always from scratch."""

    architecture: Annotated[
        Architecture,
        Doc(
            "Network trained from scratch: vit-tiny is the paper's (12 blocks, 192 features, 5.5 M parameters); "
            "vit-demo (4 blocks, 64 features) trains on two CPU cores within minutes and is meant for demonstrations."
        ),
    ] = "vit-tiny"


@dataclass(frozen=True)
class EncoderMetadata:
    """What is stored beside the weights of an encoder trained here.

    ``trained_mpp`` is in microns per pixel; ``license`` is the licence of the weights, which depends on the slides.
    """

    architecture: str
    mode: Mode
    trained_mpp: float
    steps: int
    license: str = "unknown"


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder in evaluation mode, with what a feature store records of it.

    ``name`` holds no path; ``sha256`` covers the weights (see `weights_sha256`); ``trained_mpp`` (microns per pixel)
    is None where it is unknown; ``input_px`` is the side at which the network was built, and ``fixed_input`` whether
    it takes no other; ``bf16`` runs the network in bfloat16 on CUDA (ignored on CPU).
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
    bf16: bool = False

    def embed(self, tiles: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Float32 features of RGB tiles, on the encoder's device.

        Tiles travel to the device as uint8. They are resized (bilinear, antialiased) only where the network cannot
        take their size.
        """
        with torch.inference_mode():
            images = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255.0
            if self.fixed_input and images.shape[2:] != (self.input_px, self.input_px):
                size = (self.input_px, self.input_px)
                images = functional.interpolate(images, size=size, mode="bilinear", antialias=True)
            images = scale_input(images, self.mean, self.std)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16 and self.device.type == "cuda"):
                features = self.module(images)
        return features.float()


def scale_input(
    images: Float[Tensor, "b 3 h w"], mean: tuple[float, ...] = INPUT_MEAN, std: tuple[float, ...] = INPUT_STD
) -> Float[Tensor, "b 3 h w"]:
    """Bring images in [0, 1] to the range a network expects: (x - mean) / std per channel."""
    shift = images.new_tensor(mean).view(1, 3, 1, 1)
    return (images - shift) / images.new_tensor(std).view(1, 3, 1, 1)


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


def build_encoder(config: EncoderConfig, tile_px: int, seed: int) -> nn.Module:
    """A network with random weights that depend on ``seed`` alone; the caller's random state is left as it was.

    It takes float32 (b, 3, tile_px, tile_px), scaled by `scale_input`, and gives the class token's (b, d) features.

    Raises:
        UsageError: the tile is no multiple of the architecture's patch.
    """
    overrides = _OVERRIDES[config.architecture]
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
    return _seeded(lambda: timm.create_model(_VIT_TINY, **options), seed)


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
        model_config={"pretrained_cfg": stated, _METADATA: own},
        model_args={"img_size": tile_px, "num_classes": 0, **_OVERRIDES[metadata.architecture]},
        safe_serialization=True,
    )
    return sha256


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights, in order of name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_encoder(spec: str, device: torch.device, bf16: bool = False, tile_px: int = 256) -> Encoder:
    """The encoder that ``spec`` names (see the top of this file), ready to embed on ``device``.

    ``tile_px`` is the input size of an *untrained* own architecture; every other encoder knows its own.

    Raises:
        UsageError: nothing of that name, no weights, or no connection to fetch them.
        StoreError: the folder is there and damaged.
    """
    source, _, rest = spec.partition(":")
    if source == "untrained":
        return _untrained(rest, device, bf16, tile_px)
    if source == "hf-hub":
        return _from_folder(_fetch(rest), device, bf16, name=rest)
    if source == "local-dir" or Path(spec).is_dir() or "/" in spec:
        return _from_folder(Path(rest if source == "local-dir" else spec), device, bf16, name=None)
    model = _attempt(lambda: timm.create_model(spec, pretrained=True, num_classes=0), spec)
    return _describe(model, {}, spec, device, bf16)


def _untrained(rest: str, device: torch.device, bf16: bool, tile_px: int) -> Encoder:
    name, _, seed = rest.partition("@")
    if not re.fullmatch(r"[0-9]{0,9}", seed):
        raise UsageError(f"seed {seed!r} in 'untrained:{rest}'", "a whole number after @", "Write untrained:NAME@0.")
    label = f"untrained-{name}-{int(seed or 0)}"
    if name in _OVERRIDES:
        model = build_encoder(EncoderConfig(cast(Architecture, name)), tile_px, int(seed or 0))
        return _describe(model, {"architecture": name}, label, device, bf16)
    model = _attempt(lambda: _seeded(lambda: timm.create_model(name, num_classes=0), int(seed or 0)), name)
    return _describe(model, {}, label, device, bf16)


def _from_folder(folder: Path, device: torch.device, bf16: bool, name: str | None) -> Encoder:
    if (folder / ENCODER_FOLDER / "config.json").is_file():
        folder = folder / ENCODER_FOLDER
    for file in ("config.json", _WEIGHTS):
        if not (folder / file).is_file():
            raise UsageError(
                f"no {file} in {folder}",
                "a finished checkpoint folder, or timm's config.json with model.safetensors",
                "Give the folder that train wrote; a training that was cut off must be resumed first.",
            )
    try:
        own = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(_METADATA, {})
        model = _attempt(lambda: timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0), str(folder))
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise StoreError(f"{folder} is damaged ({error})", "readable weights", "Copy or train it again.") from error
    return _describe(model, own, name, device, bf16)


def _fetch(repository: str) -> Path:
    """The Hub repository's configuration and safetensors, in the local cache; nothing else is downloaded."""
    name, _, revision = repository.partition("@")
    files = ["config.json", _WEIGHTS]
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


def _describe(model: nn.Module, own: Mapping[str, Any], name: str | None, device: torch.device, bf16: bool) -> Encoder:
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
        bf16=bf16,
    )


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Run ``build``, which draws from torch's global CPU generator, and restore that generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA, which is not restored
        return build()
