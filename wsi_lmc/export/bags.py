"""What every export starts from: one slide's usable features with what is known of it, and what slides must share."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from wsi_lmc.cohort import SlideEntry, safe_id
from wsi_lmc.contours import Polygon, read_geojson
from wsi_lmc.errors import SlideError, StoreError, UsageError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.tilestore import Validity
from wsi_lmc.units import SlidePoint
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
    """Usable tiles of one slide: ``origins`` are x, y of the top-left corner in level-0 pixels.

    ``outline`` is the GeoJSON of its tissue, None where the run has none.
    """

    slide_id: str
    features: Float32[np.ndarray, "n d"]
    origins: Int32[np.ndarray, "n 2"]
    tissue_fraction: Float32[np.ndarray, " n"]
    attributes: Attributes
    entry: SlideEntry
    outline: Path | None
    dropped: int

    @property
    def encoder(self) -> str:
        """The encoder's name, as it may stand in a file's name."""
        return safe_id(str(self.attributes["encoder"]["name"]))

    @property
    def px(self) -> int:
        """Side of a tile in target pixels."""
        return int(self.attributes["tile"]["px"])

    @property
    def footprint(self) -> tuple[float, float]:
        """Width and height of a tile in level-0 pixels."""
        width, height = self.attributes["tile"]["footprint"]
        return float(width), float(height)

    @property
    def tile_um(self) -> float:
        """Side of a tile in microns; of oblong pixels, of the square of equal area."""
        return self.px * geometric_mean(self.attributes["tile"]["effective_mpp"])

    @property
    def corner(self) -> tuple[int, int]:
        """x, y of the scanned area's corner in level-0 pixels, where the grid begins and QuPath has its origin."""
        x, y = tuple(self.attributes["slide"].get("bounds") or (0, 0))[:2]
        return int(x), int(y)

    @property
    def centres(self) -> Float64[np.ndarray, "n 2"]:
        """x, y of each tile's centre in level-0 pixels."""
        return self.origins + np.asarray(self.footprint) / 2

    @property
    def microns(self) -> Float64[np.ndarray, "n 2"]:
        """x, y of each tile's top-left corner in microns from the slide's."""
        return self.origins * np.asarray(self.attributes["slide"]["mpp"], np.float64)

    @property
    def steps(self) -> Int64[np.ndarray, "n 2"]:
        """Column and row of each tile in the grid: neighbours differ by 1, whatever a tile's size on the slide."""
        step = np.asarray(self.footprint) * self.attributes["tile"]["stride"] / self.px
        return np.rint((self.origins - np.asarray(self.corner)) / step).astype(np.int64)

    def tissue(self) -> list[Polygon]:
        """Outlines of the tissue in level-0 pixels, of the whole slide (not of what QuPath crops it to).

        Raises:
            StoreError: the outline's file is damaged.
        """
        if self.outline is None or not self.outline.is_file():
            return []
        try:
            return read_geojson(self.outline, SlidePoint(*self.corner))
        except SlideError as error:
            raise StoreError(error.found, error.expected, "Tile this slide again with --overwrite.") from error


@dataclass(frozen=True)
class Exported:
    """What is remembered of a slide once its features have left the memory; ``dim`` is of its features."""

    entry: SlideEntry
    tiles: int
    dropped: int
    attributes: Attributes
    dim: int

    @property
    def slide_id(self) -> str:
        """The slide's safe id."""
        return self.entry.slide_id


def geometric_mean(pair: Sequence[float]) -> float:
    """Mean of a value along x and along y: the side of the square of equal area."""
    return float(pair[0] * pair[1]) ** 0.5


def load_bag(store: FeatureStore, entry: SlideEntry, outline: Path | None = None) -> Bag:
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
        tissue_fraction=fresh.tissue_fraction[usable],
        attributes=store.attributes,
        entry=entry,
        outline=outline,
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
