"""HDF5 files of others, read with care: nothing is followed out of the file, unpickled, or made up where it is missing.

HDF5 reads what was never written as zeros, may name other files for its data, and may declare more than any memory
holds: all of that is refused before anything is read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from wsi_lmc.errors import SlideError
from wsi_lmc.passing import from_text, may_pass

MOST_ROWS, MOST_COLUMNS, MOST_BYTES = 2_000_000, 65_536, 1 << 34
_HARD_LINK = 0  # H5L_TYPE_HARD
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
AGAIN = "Make this file again, or copy it again from where it was made."


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever the library raises inside becomes a reason that names no folder.

    Raises:
        SlideError: ``unsupported`` (no HDF5), ``truncated`` or ``damaged``.
        OSError: of a disk or a network, which may pass.
    """
    with path.open("rb") as plain:
        if plain.read(len(_SIGNATURE)) != _SIGNATURE:
            raise SlideError("unsupported", f"{path.name} is no HDF5 file", "a file that TRIDENT or CLAM wrote", AGAIN)
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        passing = error if may_pass(error) else from_text(str(error))
        if passing is not None:
            raise passing from error
        cut = "truncated" in str(error)
        said = "ends before its own end" if cut else f"cannot be read ({type(error).__name__} of HDF5)"
        raise SlideError("truncated" if cut else "damaged", f"{path.name} {said}", "a whole file", AGAIN) from error


def holds(file: h5py.File, name: str) -> bool:
    """Whether there is something of that name, without following where it leads."""
    return bool(file.id.links.exists(name.encode()))


def dataset_of(file: h5py.File, name: str, kinds: str) -> h5py.Dataset:
    """A dataset whose values lie in this very file, all of them; ``kinds`` are numpy's letters of what it may hold.

    Raises:
        SlideError: ``damaged``, ``truncated``, ``unsupported`` or ``too_large``.
    """
    shown = f"{name} of {Path(file.filename).name}"
    if not holds(file, name):
        names = ", ".join(sorted(str(key)[:40] for key in list(file)[:9])) or "nothing"
        raise SlideError("damaged", f"no dataset {shown}, which holds {names}", f"a dataset {name}", AGAIN)
    if file.id.links.get_info(name.encode()).type != _HARD_LINK:
        raise SlideError("unsupported", f"{shown} is a link to another place", "data in the file itself", AGAIN)
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise SlideError("damaged", f"{shown} is no array", "an array", AGAIN)
    if found.external or found.is_virtual:
        raise SlideError("unsupported", f"{shown} keeps its values in other files", "data in the file itself", AGAIN)
    if found.dtype.kind not in kinds or found.dtype.hasobject:
        raise SlideError("unsupported", f"{shown} holds {found.dtype}", "plain numbers", AGAIN)
    check_size(found.shape, found.dtype.itemsize, shown)
    _check_written(found, shown)
    return found


def check_size(shape: tuple[int, ...], itemsize: int, shown: str) -> None:
    """Raise SlideError ``too_large`` where an array is larger than any slide's."""
    rows, columns = (shape[-2] if len(shape) > 1 else shape[0] if shape else 0), (shape[-1] if len(shape) > 1 else 1)
    if rows > MOST_ROWS or columns > MOST_COLUMNS or math.prod(shape) * itemsize > MOST_BYTES:
        raise SlideError(
            "too_large",
            f"{shown} declares {' x '.join(map(str, shape))} values",
            f"{MOST_ROWS} rows, {MOST_COLUMNS} columns and {MOST_BYTES >> 30} GiB at most",
            "Look at how this file was made.",
        )


def numbers(dataset: h5py.Dataset, name: str) -> tuple[float, ...] | None:
    """An attribute of one or two finite numbers; None where there is none, or something else stands there.

    Attributes of text are left alone: they say nothing that is needed, and HDF5 loops for ever over a damaged heap.
    """
    if name not in dataset.attrs:
        return None
    stored = dataset.attrs.get_id(name)
    if stored.dtype.kind not in "iuf" or math.prod(stored.shape) not in (1, 2):
        return None
    values = tuple(float(value) for value in np.ravel(np.asarray(dataset.attrs[name])))
    return values if all(map(math.isfinite, values)) else None


def _check_written(dataset: h5py.Dataset, shown: str) -> None:
    """Refuse an array of which a part was declared and never written: it would read as zeros."""
    if dataset.chunks is None:
        missing = dataset.nbytes > dataset.id.get_storage_size()
    else:
        sides = zip(dataset.shape, dataset.chunks, strict=True)
        missing = math.prod(-(-length // side) for length, side in sides) > dataset.id.get_num_chunks()
    if missing:
        raise SlideError("truncated", f"{shown} was not written to its end", "a file that was finished", AGAIN)
