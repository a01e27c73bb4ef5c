"""What every export starts from: one slide's usable features, and the checks that slides belong together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from wsi_lmc.cohort import safe_id
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.tilestore import Validity
from wsi_lmc.zarrio import Attributes, damaged_arrays

_TOLERANCE = 0.02


@dataclass(frozen=True)
class Skipped:
    """A slide that is missing from the export, or from one of its files, and why."""

    slide_id: str
    reason: str


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    ``dropped`` counts, by slide, the unreadable tiles left out: their features are of plain background, and the
    readers of an export know no validity mask. Slides without any are not listed.
    """

    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Bag:
    """Usable tiles of one slide: ``origins`` are x, y of the top-left corner in level-0 pixels."""

    slide_id: str
    features: Float32[np.ndarray, "n d"]
    origins: Int32[np.ndarray, "n 2"]
    attributes: Attributes
    dropped: int


def load_bag(store: FeatureStore) -> Bag:
    """Read a store whole, as float32, without its unreadable tiles.

    Raises:
        StoreError: its bytes are not those that were written. A lost chunk would read as zeros, without a word.
    """
    damaged = damaged_arrays(store.path, store.attributes)
    if damaged:
        raise StoreError(
            f"{store.path.name}: {', '.join(damaged)} changed since they were written",
            "the bytes its checksums were taken of",
            "Embed this slide again with --overwrite.",
        )
    fresh = replace(store)  # a store keeps what it has read: thousands of them would fill the memory
    usable = fresh.valid != Validity.UNREADABLE
    return Bag(
        slide_id=store.slide_id,
        features=fresh.features[usable].astype(np.float32),
        origins=fresh.origins[usable],
        attributes=store.attributes,
        dropped=int(np.count_nonzero(~usable)),
    )


def check_stores(stores: Sequence[FeatureStore]) -> None:
    """Refuse slides that no reader could take for one data set.

    Raises:
        UsageError: no store; an id twice, or one that is no file name; tiles or encoders differ.
    """
    if not stores:
        raise UsageError("no feature store", "at least one", "Give the run folder that embed wrote.")
    for slide_id, count in Counter(store.slide_id.casefold() for store in stores).items():
        if count > 1:
            raise UsageError(f"slide {slide_id} {count} times", "every slide once", "Leave out all stores but one.")
    for store in stores:
        if safe_id(store.slide_id) != store.slide_id:
            raise UsageError(
                f"slide id {store.slide_id!r} in {store.path.name}",
                "an id that can be a file's name",
                "Embed it again.",
            )
    reference = _kind(stores[0])
    for store in stores[1:]:
        for name, value in _kind(store).items():
            if not _alike(value, reference[name]):
                raise UsageError(
                    f"{name} is {value} for slide {store.slide_id} and {reference[name]} for {stores[0].slide_id}",
                    "one tile size, pixel size, stride and encoder in an export",
                    "Export them one kind at a time.",
                )


def _kind(store: FeatureStore) -> dict[str, object]:
    tile, encoder = store.attributes["tile"], store.attributes["encoder"]
    return {
        "tile px": tile["px"],
        "tile mpp": tile["mpp"],
        "stride": tile["stride"],
        "encoder": encoder["name"],
        "encoder sha256": encoder["sha256"],
        "width": store.width,
    }


def _alike(value: object, other: object) -> bool:
    """Whether two slides' statements agree; pixel sizes that were measured, as of imported features, within 2 %."""
    if isinstance(value, float) and isinstance(other, float):
        return abs(value / other - 1.0) <= _TOLERANCE
    return value == other
