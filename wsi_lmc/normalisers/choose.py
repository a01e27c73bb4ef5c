"""Which normaliser, with which reference or weights: by name, checked before any slide is touched."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from wsi_lmc.errors import UsageError
from wsi_lmc.normalisers.colour import Macenko, Reinhard
from wsi_lmc.normalisers.generators import StainGan, StainNet, load_generator
from wsi_lmc.normalisers.stainfuser import StainFuser, load_networks
from wsi_lmc.patches import read_image

NormaliserName = Literal["none", "reinhard", "macenko", "stainnet", "staingan", "stainfuser"]
_FITTED = ("reinhard", "macenko", "stainfuser")
_BLOCK = 1 << 20
_WEIGHTED = ("stainnet", "staingan", "stainfuser")


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
        reference: an image of the look that is wanted (reinhard, macenko, stainfuser).
        weights: a file (stainnet, staingan) or a folder (stainfuser).
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
    if name == "stainfuser":
        return StainFuser(*load_networks(Path(weights or "")), tile)
    try:
        return Reinhard.fit(tile) if name == "reinhard" else Macenko.fit(tile)
    except ValueError as error:
        raise UsageError(
            f"{error} ({Path(reference or '').name})", "a tile of H&E tissue", "Choose another --reference."
        ) from error


def normaliser_fingerprint(name: NormaliserName, reference: str | None, weights: str | None) -> str:
    """SHA-256 over the name and the contents of what it was fitted on: where it lies does not matter."""
    files: list[Path] = []
    for given in (reference, weights):
        path = Path(given or "")
        files += [path] if given and path.is_file() else sorted(path.rglob("*")) if given else []
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return _fingerprint(name, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@lru_cache(maxsize=8)
def _fingerprint(name: str, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Read each file once a process, not once a slide: StainFuser's have gigabytes; a file that changes is seen."""
    digest = hashlib.sha256(name.encode())
    for path, _, _ in files:
        digest.update(f"{path.name};".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _check(name: str, flag: str, value: str | None, needed: bool) -> None:
    if needed and not value:
        raise UsageError(f"--normalise {name} without {flag}", f"{flag} PATH", f"Give {flag}.")
    if value and not needed:
        raise UsageError(f"{flag} with --normalise {name}", f"no {flag}", "Leave it out, or choose a normaliser.")
    if value and not Path(value).exists():
        raise UsageError(f"{flag} {value} does not exist", "a file that does", f"Check {flag}.")
