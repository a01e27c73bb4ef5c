"""Values of a slide's tiles as a picture to be laid over it: one cell a tile, however large that is on the screen."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from wsi_lmc.contours import Polygon
from wsi_lmc.tilestore import Validity
from wsi_lmc.viewer.colours import (
    KEPT,
    OKABE_ITO,
    PADDED,
    REJECTED,
    UNREADABLE,
    Legend,
    by_class,
    by_three,
    by_value,
    to_png,
)
from wsi_lmc.viewer.outline import whole_grid
from wsi_lmc.viewer.space import Space
from wsi_lmc.viewer.tiles import Area, Tiles

ATTENTION = "attention"
_ENDS = (1.0, 99.0)  # percentiles of a slide's values that get the ends of a scale which nothing else bounds
_NAMES = {
    Validity.OK: "kept",
    Validity.PADDED: "kept, reaches beyond the slide",
    Validity.COMPOSITED: "kept, partly transparent",
    Validity.UNREADABLE: "kept, could not be decoded",
}
_COLOURS = {Validity.OK: KEPT, Validity.PADDED: PADDED, Validity.COMPOSITED: OKABE_ITO[3],
            Validity.UNREADABLE: UNREADABLE}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A picture over ``area`` (level-0 pixels), ``shape`` rows and columns of cells, and what its colours mean.

    ``values`` are numbers by tile, where they are such: what is told of a tile that was clicked on.
    """

    area: Area
    picture: UInt8[np.ndarray, "rows columns 4"]
    legend: Legend
    values: Float[np.ndarray, " n"] | None = None

    def document(self) -> dict[str, Any]:
        """As the page takes it; the picture is PNG in base64."""
        area = self.area
        return {
            "area": [area.x, area.y, area.width, area.height],
            "columns": self.picture.shape[1],
            "rows": self.picture.shape[0],
            "legend": self.legend.document(),
            "picture": base64.b64encode(to_png(self.picture)).decode(),
        }


def kept_layer(tiles: Tiles, outline: list[Polygon]) -> Layer:
    """Tiles that were kept, by how their pixels were, and cells of the grid that hold tissue and were not."""
    numbers = tiles.valid.astype(np.int64)
    colours = by_class(numbers, [_COLOURS[kind] for kind in Validity])
    classes = [(_NAMES[kind], _COLOURS[kind], int((numbers == kind).sum())) for kind in Validity]
    picture, area = tiles.raster.paint(colours), tiles.raster.area
    cells = whole_grid(tiles, outline)
    note = "Tiles of the store."
    if cells is not None:
        numbered = cells.numbers.ravel().astype(np.int64) - 1
        picture = by_class(numbered, [REJECTED, KEPT]).reshape(*cells.numbers.shape, 4)
        own = np.rint((tiles.origins - np.asarray([tiles.bounds.x, tiles.bounds.y])) / tiles.step).astype(np.int64)
        picture[own[:, 1], own[:, 0]] = colours
        area = cells.area
        rejected = int((cells.numbers == 1).sum())
        classes.insert(1, ("rejected: some tissue, but too little", REJECTED, rejected))
        note = "Cells of the grid that hold any tissue; those without have no colour."
    return Layer(area, picture, Legend("Kept and rejected tiles", note, classes=tuple(c for c in classes if c[2])))


def value_layer(tiles: Tiles, values: Float[np.ndarray, " n"], legend: tuple[str, str], span: Sequence[float]) -> Layer:
    """Numbers of tiles by cividis; ``legend`` is a title and a sentence, ``span`` the ends of the scale."""
    low, high = span
    colours = by_value(values, low, high)
    return Layer(tiles.raster.area, tiles.raster.paint(colours), Legend(*legend, float(low), float(high)), values)


def tissue_layer(tiles: Tiles) -> Layer:
    """The share of each tile's area that is tissue."""
    note = "Share of the tile's area inside the tissue's outline."
    return value_layer(tiles, tiles.tissue_fraction, ("Tissue in the tile", note), (0.0, 1.0))


def score_layer(tiles: Tiles, name: str, values: Float64[np.ndarray, " n"], about: str) -> Layer:
    """Attention, as multiples of its mean; ranks in percent; or a probability."""
    if name == ATTENTION:
        usable = values[np.isfinite(values)]
        mean = float(usable.mean()) if len(usable) else 1.0
        relative = values / mean if mean else values
        top = max(2.0, float(np.nanmax(relative, initial=0.0)))
        return value_layer(tiles, relative, ("Attention", f"1 = the mean of the slide's tiles. {about}"), (0.0, top))
    if name.endswith("percentile"):
        note = f"Rank within the slide: 100 is the highest. {about}"
        return value_layer(tiles, values, ("Rank of attention, percent", note), (0.0, 100.0))
    return value_layer(tiles, values, (name.capitalize(), about), (0.0, 1.0))


def similarity_layer(tiles: Tiles, values: Float[np.ndarray, " n"], to: str) -> Layer:
    """Cosine with a tile; the scale runs between percentiles of this slide's values, as its numbers say."""
    usable = values[np.isfinite(values)]
    low, high = np.percentile(usable, _ENDS) if len(usable) else (0.0, 1.0)
    if high - low < 1e-3:
        low = high - 1e-3
    note = f"Cosine of features with {to}; the scale's ends are the 1st and 99th percentile of this slide."
    return value_layer(tiles, values, ("Similar to the tile clicked on", note), (float(low), float(high)))


def component_layer(tiles: Tiles, space: Space, components: Float64[np.ndarray, "n c"]) -> Layer:
    """The first three principal components as a colour."""
    colours = by_three(space.coloured(components))
    colours[tiles.valid == Validity.UNREADABLE] = 0
    shares = [f"{ends} {share:.0%}" for ends, share in zip(
        ("dark to light", "blue to yellow", "green to red"), space.shares, strict=False)]  # fmt: skip
    note = f"Principal components, with their share of the variance: {', '.join(shares)}. {_sample(space)}"
    return Layer(tiles.raster.area, tiles.raster.paint(colours), Legend("Features as colours", note))


def cluster_layer(tiles: Tiles, space: Space, components: Float64[np.ndarray, "n c"]) -> Layer:
    """The nearest of the cohort's clusters."""
    numbers = np.where(tiles.valid == Validity.UNREADABLE, -1, space.clusters(components))
    names = [f"cluster {number + 1}" for number in range(len(space.centres))]
    classes = tuple(
        (name, colour, int((numbers == number).sum()))
        for number, (name, colour) in enumerate(zip(names, OKABE_ITO, strict=False))
    )
    note = f"k-means of features; tiles of this slide are counted. {_sample(space)}"
    legend = Legend("Clusters of features", note, classes=classes)
    picture = tiles.raster.paint(by_class(numbers, OKABE_ITO))
    return Layer(tiles.raster.area, picture, legend, (numbers + 1).astype(np.float64))


def label_layer(tiles: Tiles, labels: Sequence[str]) -> Layer:
    """Labels of tiles; beyond the seven most frequent they share the last colour."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + bool(label)
    order = sorted((name for name in counts if name), key=lambda name: (-counts[name], name))
    shown = order if len(order) <= len(OKABE_ITO) else order[: len(OKABE_ITO) - 1]
    number = {name: min(place, len(OKABE_ITO) - 1) for place, name in enumerate(order)}
    numbers = np.asarray([number.get(label, -1) for label in labels], np.int64)
    classes = [(name, OKABE_ITO[number[name]], counts[name]) for name in shown]
    if len(order) > len(shown):
        classes.append(
            (f"{len(order) - len(shown)} others", OKABE_ITO[-1], sum(counts[n] for n in order[len(shown) :]))
        )
    legend = Legend(
        "Labels of tiles", "As they stand in labels/; tiles without one have no colour.", classes=tuple(classes)
    )
    return Layer(tiles.raster.area, tiles.raster.paint(by_class(numbers, OKABE_ITO)), legend)


def _sample(space: Space) -> str:
    return f"Fitted to {space.tiles:,} tiles of {space.slides:,} slides, the same for all slides."
