"""Slides as heads take them: which there are, what is known of them, where their tiles lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from wsi_lmc.cohort import SlideEntry, read_manifest, read_rows
from wsi_lmc.errors import UsageError
from wsi_lmc.featuresets import Found, Reading, find_features_of
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.heads.examples import Case
from wsi_lmc.heads.maps import Place
from wsi_lmc.heads.model import Level
from wsi_lmc.labels import NO_CLASS, classes_of
from wsi_lmc.tilestore import Validity


@dataclass(frozen=True)
class Cohort:
    """Slides with features of one encoder: cases, where their tiles lie, and how the features came about.

    ``normalised`` says how the tiles of each site had been normalised.
    """

    cases: tuple[Case, ...]
    places: Mapping[str, Place]
    encoder: Mapping[str, Any]
    tile_mpp: float
    normalised: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Selection:
    """Which features and labels: ``label`` is a column of ``manifest``, which goes before those of the run folders."""

    specs: tuple[str, ...]
    manifest: Path | None = None
    label: str = "label"
    classes: tuple[str, ...] = ()


def find_slides(selection: Selection) -> list[Found]:
    """The slides of a selection, which must make one set; labels of another column are put in their place.

    Raises:
        UsageError: several sets, or a column that is not there.
    """
    sets = find_features_of(selection.specs, Reading(selection.manifest))
    if len(sets) != 1:
        raise UsageError(
            f"features of {len(sets)} names: {', '.join(sets)}", "one encoder's features", "Classify each in turn."
        )
    found = list(next(iter(sets.values())).values())
    if selection.label == "label":
        return found
    labels = _column(selection.manifest, selection.label)
    return [replace(slide, entry=_relabelled(slide.entry, labels)) for slide in found]


def class_names(slides: Sequence[Found], level: Level) -> tuple[str, ...]:
    """The labels that occur, in alphabetical order, of slides or of tiles."""
    names = (slide.names if level == "tile" else {slide.entry.label} for slide in slides)
    return tuple(sorted(set().union(*names) - {""}))


def load_cohort(slides: Sequence[Found], classes: tuple[str, ...]) -> Cohort:
    """Cases of some slides, without their unreadable tiles; features stay on disk until they are read."""
    encoder = slides[0].store.attributes["encoder"]
    tile = slides[0].store.attributes["tile"]
    normalised: dict[str, set[str]] = {}
    for slide in slides:
        normalised.setdefault(slide.entry.site, set()).add(str(slide.store.attributes["encoder"]["normalised"]))
    return Cohort(
        tuple(_case(slide, classes) for slide in slides),
        {slide.store.slide_id: _place(slide) for slide in slides},
        encoder,
        float(tile["mpp"]),
        {site: sorted(found) for site, found in normalised.items()},
    )


def _case(slide: Found, classes: tuple[str, ...]) -> Case:
    entry, store = slide.entry, slide.store
    rows = np.nonzero(store.valid != Validity.UNREADABLE)[0]
    label = classes.index(entry.label) if entry.label in classes else NO_CLASS
    origins = store.origins[rows]
    tiles = classes_of(origins, slide.labels, entry.label, classes)
    return Case(store.slide_id, entry.patient, entry.site, label, origins, tiles, _Reader(store.path, rows))


@dataclass(frozen=True)
class _Reader:
    """Reads some rows of a feature store, anew each time: an open store would keep what it read."""

    path: Path
    rows: Int64[np.ndarray, " n"]

    def __call__(self) -> Float[np.ndarray, "n d"]:
        return FeatureStore.open(self.path).features[self.rows]


def _place(slide: Found) -> Place:
    about, tile = slide.store.attributes["slide"], slide.store.attributes["tile"]
    width, height = tile.get("footprint", (tile["px"], tile["px"]))  # stores of single images state none
    size = (float(about["width"]), float(about["height"])) if "width" in about and "height" in about else None
    x, y = tuple(about.get("bounds", (0, 0)))[:2]
    pictures = [place / "overviews" / f"{slide.store.slide_id}.jpg" for place in slide.places]
    overview = next((path for path in pictures if path.is_file()), None)
    return Place(slide.store.slide_id, (float(width), float(height)), size, (float(x), float(y)), overview)


def _column(manifest: Path | None, column: str) -> dict[str, str]:
    """A column of a manifest, by slide id."""
    if manifest is None:
        raise UsageError(f"--label {column} without --manifest", "the table that has this column", "Give --manifest.")
    rows = read_rows(manifest, ["slide", column], ["slide", column])
    return {entry.slide_id: row.cells[column] for entry, row in zip(read_manifest(manifest), rows, strict=True)}


def _relabelled(entry: SlideEntry, labels: Mapping[str, str]) -> SlideEntry:
    return replace(entry, label=labels.get(entry.slide_id, ""))
