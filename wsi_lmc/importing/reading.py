"""What TRIDENT and CLAM wrote of a slide into one :class:`Foreign`, whole and consistent, or a reason why not."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only to recognise torch's refusal: nothing is unpickled here

import h5py
import numpy as np
from jaxtyping import Float, Int32

from wsi_lmc.errors import SlideError
from wsi_lmc.importing.config import ImportConfig
from wsi_lmc.importing.foreign import Files, Foreign, Patches
from wsi_lmc.importing.geometry import ATTRIBUTES, agreed, patches_of, stated_patches
from wsi_lmc.importing.hdf5 import AGAIN, check_size, dataset_of, holds, numbers, open_hdf5
from wsi_lmc.passing import may_pass

TENSOR = ".pt"
_NO_TENSOR = (
    UnpicklingError, OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
    AssertionError, ImportError,
)  # fmt: skip
"""What torch raises on bytes that are no tensor, or not one that it may load."""
_LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class _Coordinates:
    """Corners of patches in level-0 pixels, and what stands beside them; ``patches`` is None where that is nothing."""

    origins: Int32[np.ndarray, "n 2"]
    patches: Patches | None


def read_foreign(files: Files, config: ImportConfig) -> Foreign:
    """Read a slide's features and where its patches lie.

    Args:
        files: of the slide; both are looked at where there are two.
        config: what the user states beside them.

    Raises:
        SlideError: a file is missing, damaged, of another kind, or contradicts the other one.
    """
    own: _Coordinates | None = None
    check_place(files.features, files.folders)
    if files.features.suffix == TENSOR:
        features = read_tensor(files.features)
    else:
        with open_hdf5(files.features) as file:
            features = _features(file)
            own = _coordinates(file) if holds(file, "coords") else None
    other: _Coordinates | None = None
    if files.coordinates is not None:
        check_place(files.coordinates, files.folders)
        with open_hdf5(files.coordinates) as file:
            other = _coordinates(file)
    found = own or other
    if found is None:
        raise SlideError(
            "unsupported",
            f"{files.features.name} holds features without coordinates",
            "coordinates: a dataset coords, or a file of the patches",
            "Name the folder of the patches' files with --patches.",
        )
    if own is not None and other is not None and not np.array_equal(own.origins, other.origins):
        raise SlideError("damaged", "the file of the patches has other coordinates", "those of the features", AGAIN)
    if len(found.origins) != len(features):
        raise SlideError("damaged", f"{len(features)} features, {len(found.origins)} coordinates", "one each", AGAIN)
    stated = (own.patches if own is not None else None) or (other.patches if other is not None else None)
    patches = agreed(stated, stated_patches(config))
    _check_inside(found.origins, patches)
    return Foreign(features, found.origins, patches)


def check_place(path: Path, folders: tuple[Path, ...]) -> None:
    """Refuse what is no file of the folders that were named, before any library touches it (a FIFO would block).

    Raises:
        SlideError: ``missing``, ``folder``, ``not_a_file`` or ``empty_file``.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise SlideError(
            "not_a_file", f"{path.name} is a link out of its folder", "a file", "Copy the file itself to where it is."
        )
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise SlideError("missing", f"no file {path.name}", "a file of features", "Check the folder.") from error
    if stat.S_ISDIR(status.st_mode):
        raise SlideError("folder", f"{path.name} is a folder", "a file of features", "Remove it.")
    if not stat.S_ISREG(status.st_mode):
        raise SlideError("not_a_file", f"{path.name} is no regular file", "a file of features", "Remove it.")
    if status.st_size == 0:
        raise SlideError("empty_file", f"{path.name} has 0 bytes", "a file of features", AGAIN)


def read_tensor(path: Path) -> Float[np.ndarray, "n d"]:
    """A bare tensor that torch saved; nothing that it could run is.

    Raises:
        SlideError: ``unsupported``, ``damaged`` or ``too_large``.
    """
    import torch  # only where there are such files

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_TENSOR as error:
        if may_pass(error):
            raise
        raise SlideError(
            "damaged", f"{path.name} is no tensor ({type(error).__name__})", "a tensor that torch saved", AGAIN
        ) from error
    plain = isinstance(found, torch.Tensor) and found.layout == torch.strided and found.is_floating_point()
    if not plain or found.device.type != "cpu":
        raise SlideError("unsupported", f"{path.name} holds no plain tensor", "a tensor of numbers", AGAIN)
    shape = tuple(found.shape)
    check_size(shape, 4, path.name)
    if found.untyped_storage().nbytes() < found.numel() * found.element_size():  # one number, declared many times
        raise SlideError("damaged", f"{path.name} declares more numbers than it holds", "a whole tensor", AGAIN)
    kept = found.detach() if found.dtype in (torch.float16, torch.float32) else found.detach().float()
    return _bag(kept.numpy(), path.name)


def _features(file: h5py.File) -> Float[np.ndarray, "n d"]:
    return _bag(np.asarray(dataset_of(file, "features", "f")[()]), Path(file.filename).name)


def _bag(values: np.ndarray, name: str) -> Float[np.ndarray, "n d"]:
    """One row a patch, in float16 or float32 of this machine; a batch of one bag is that bag."""
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.shape[1] == 0:
        shape = " x ".join(map(str, values.shape))
        expected = "patches x numbers, or 1 x patches x numbers"
        raise SlideError("unsupported", f"{name} has features of shape {shape}", expected, "Give features of patches.")
    with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is treated as such
        return np.ascontiguousarray(values, np.float16 if values.dtype.itemsize == 2 else np.float32)


def _coordinates(file: h5py.File) -> _Coordinates:
    if holds(file, "imgs"):
        raise SlideError(
            "unsupported",
            "patches with their pixels, whose coordinates count pixels of a level",
            "coordinates in level-0 pixels",
            "Use CLAM's create_patches_fp.py, which keeps coordinates alone.",
        )
    dataset = dataset_of(file, "coords", "iuf")
    stated = {name: values for name in ATTRIBUTES if (values := numbers(dataset, name)) is not None}
    values = np.asarray(dataset[()])
    values = values.reshape(0, 2) if values.size == 0 else values
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2 or values.shape[1] != 2:
        shape = " x ".join(map(str, values.shape))
        raise SlideError("unsupported", f"coordinates of shape {shape}", "patches x 2", AGAIN)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(values) & (values == np.floor(values)) if values.dtype.kind == "f" else np.True_
    inside = (values >= 0) & (values <= _LARGEST) & whole
    if not inside.all():
        row = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise SlideError(
            "damaged",
            f"coordinates {', '.join(map(str, values[row]))} in row {row}",
            f"whole level-0 pixels from 0 to {_LARGEST}",
            AGAIN,
        )
    return _Coordinates(values.astype(np.int32), patches_of(stated))


def _check_inside(origins: Int32[np.ndarray, "n 2"], patches: Patches) -> None:
    if patches.size is None or not len(origins):
        return
    outside = (origins[:, 0] >= patches.size.width) | (origins[:, 1] >= patches.size.height)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise SlideError(
            "damaged",
            f"{int(outside.sum())} patches begin outside of the slide, the first at {tuple(origins[row].tolist())}",
            f"less than {patches.size.width} and {patches.size.height} level-0 pixels",
            "Files of two slides, or of two levels, may have been mixed up: make them again.",
        )
