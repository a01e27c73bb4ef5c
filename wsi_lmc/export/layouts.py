"""Whose layouts there are, and what writes each: a file or two a slide, and tables once all slides are there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from wsi_lmc.errors import UsageError
from wsi_lmc.export.bags import Bag, Exported, Skipped

Target = Literal[
    "trident", "clam", "transmil", "stamp", "torchmil", "slideflow", "eva", "anndata", "spatialdata", "qupath",
    "parquet", "npz",
]  # fmt: skip
Write = Callable[[Bag, Path], list[Path]]
Finish = Callable[[Sequence[Exported], Path], tuple[list[Path], list[Skipped]]]


@dataclass(frozen=True)
class Layout:
    """``write`` writes a slide's files; ``finish``, the tables over all, and says which slides are missing in them."""

    write: Write
    finish: Finish | None = None


@dataclass(frozen=True)
class _Place:
    """Names of a layout's functions and of their module; ``extra`` is what the module needs beside the package."""

    module: str
    write: str
    finish: str = ""
    extra: str = ""


_PLACES: dict[Target, _Place] = {
    "trident": _Place("trident", "write_trident"),
    "clam": _Place("clam", "write_clam", "finish_clam"),
    "transmil": _Place("plain", "write_transmil", "finish_plain"),
    "stamp": _Place("stamp", "write_stamp", "finish_stamp"),
    "torchmil": _Place("torchmil", "write_torchmil", "finish_torchmil"),
    "slideflow": _Place("slideflow", "write_slideflow", "finish_slideflow"),
    "eva": _Place("eva", "write_eva", "finish_eva"),
    "anndata": _Place("scanpy", "write_anndata", extra="scverse"),
    "spatialdata": _Place("spatial", "write_spatialdata", extra="scverse"),
    "qupath": _Place("qupath", "write_qupath"),
    "parquet": _Place("parquet", "write_parquet", "finish_parquet", extra="parquet"),
    "npz": _Place("plain", "write_arrays", "finish_plain"),
}


def find_layout(to: Target) -> Layout:
    """What writes a layout; only its own packages are imported, some of which take seconds.

    Raises:
        UsageError: they are not installed.
    """
    place = _PLACES[to]
    try:
        module = import_module(f"wsi_lmc.export.{place.module}")
    except ImportError as error:
        if not place.extra:
            raise
        raise UsageError(
            f"{to} cannot be written ({error})",
            f"the extra {place.extra}",
            f"Run: pip install 'wsi-lmc[{place.extra}]'.",
        ) from error
    finish = getattr(module, place.finish) if place.finish else None
    return Layout(cast(Write, getattr(module, place.write)), cast("Finish | None", finish))
