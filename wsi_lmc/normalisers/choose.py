"""Which normaliser, with which reference or weights: by name, checked before any slide is touched."""

import hashlib
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError
from wsi_lmc.normalisers.colour import Macenko, Reinhard
from wsi_lmc.normalisers.generators import StainGan, StainNet, load_generator
from wsi_lmc.patches import read_image

NormaliserName = Literal["none", "reinhard", "macenko", "stainnet", "staingan"]
_FITTED = ("reinhard", "macenko")
_WEIGHTED = ("stainnet", "staingan")


@runtime_checkable
class Normaliser(Protocol):
    """Turns RGB tiles into RGB tiles of another look, on the device they are on."""

    def __call__(self, tiles: UInt8[Tensor, "b h w 3"]) -> UInt8[Tensor, "b h w 3"]:
        """Normalise each tile on its own: neighbours in a batch change nothing."""
        ...


def load_normaliser(
    name: NormaliserName, reference: str | None, weights: str | None, device: torch.device
) -> Normaliser | None:
    """The normaliser called ``name``, ready on ``device``; None for "none".

    Args:
        name: of it.
        reference: an image of the look that is wanted (reinhard, macenko).
        weights: a file (stainnet, staingan).
        device: of the tiles.

    Raises:
        UsageError: a reference or weights are missing, unusable, or given in vain.
        SlideError: the reference is no image.
    """
    _check(name, "--reference", reference, name in _FITTED)
    _check(name, "--weights", weights, name in _WEIGHTED)
    if name == "none":
        return None
    if name in ("stainnet", "staingan"):
        return load_generator(StainNet if name == "stainnet" else StainGan, Path(weights or ""), device)
    tile = torch.from_numpy(read_image(Path(reference or ""))).to(device)
    try:
        return Reinhard.fit(tile) if name == "reinhard" else Macenko.fit(tile)
    except ValueError as error:
        raise UsageError(
            f"{error} ({Path(reference or '').name})", "a tile of H&E tissue", "Choose another --reference."
        ) from error


def normaliser_fingerprint(name: NormaliserName, reference: str | None, weights: str | None) -> str:
    """SHA-256 over the name and the contents of what it was fitted on: where it lies does not matter."""
    digest = hashlib.sha256(name.encode())
    for given in (reference, weights):
        path = Path(given or "")
        files = [path] if given and path.is_file() else sorted(path.rglob("*")) if given else []
        for file in files:
            if file.is_file():
                digest.update(f"{file.name};".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _check(name: str, flag: str, value: str | None, needed: bool) -> None:
    if needed and not value:
        raise UsageError(f"--normalise {name} without {flag}", f"{flag} PATH", f"Give {flag}.")
    if value and not needed:
        raise UsageError(f"{flag} with --normalise {name}", f"no {flag}", "Leave it out, or choose a normaliser.")
    if value and not Path(value).exists():
        raise UsageError(f"{flag} {value} does not exist", "a file that does", f"Check {flag}.")
