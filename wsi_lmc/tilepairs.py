"""Pairs of tiles that show the same tissue in two scans, as a table: ``slide_a,x_a,y_a,slide_b,x_b,y_b``.

Slides are named by their ids, tiles by their origins (top-left corner in level-0 pixels), as in tables of labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsi_lmc.cohort import read_rows
from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import PairFeatures
from wsi_lmc.featuresets import Found, Reading, find_features_of

COLUMNS = ("slide_a", "x_a", "y_a", "slide_b", "x_b", "y_b")
_FEWEST = 10


@dataclass(frozen=True)
class Place:
    """A tile: its slide, and its origin in level-0 pixels."""

    slide_id: str
    x: int
    y: int


def read_pairs(path: Path) -> list[tuple[Place, Place]]:
    """Pairs of a table.

    Raises:
        UsageError: it cannot be read, lacks a column, has an origin that is no whole number, or too few rows.
    """
    pairs: list[tuple[Place, Place]] = []
    for row in read_rows(path, COLUMNS, COLUMNS):
        places = []
        for side in ("a", "b"):
            x, y = row.cells[f"x_{side}"], row.cells[f"y_{side}"]
            if not (x.isdecimal() and y.isdecimal()):
                at = f"{path}, line {row.line}: x {x[:20]!r}, y {y[:20]!r}"
                raise UsageError(at, "whole level-0 pixels", "Mend the table.")
            places.append(Place(row.cells[f"slide_{side}"], int(x), int(y)))
        pairs.append((places[0], places[1]))
    if len(pairs) < _FEWEST:
        raise UsageError(f"{len(pairs)} pairs in {path}", f"{_FEWEST} at least", "List more pairs.")
    return pairs


def load_pairs(specs: Sequence[str], reading: Reading, path: Path) -> dict[str, PairFeatures]:
    """Features of the pairs in each set that ``specs`` name; a pair's group is that of its first slide.

    Raises:
        UsageError: a table that does not fit, a slide that is in no set, or a tile that has no features.
        StoreError: a store cannot be opened.
    """
    pairs = read_pairs(path)
    return {name: _features_of(pairs, slides, name) for name, slides in find_features_of(specs, reading).items()}


def _features_of(pairs: Sequence[tuple[Place, Place]], slides: Mapping[str, Found], name: str) -> PairFeatures:
    unknown = {place.slide_id for pair in pairs for place in pair} - set(slides)
    if unknown:
        raise UsageError(
            f"pairs of slide {min(unknown)}, of which {name} has no features", "slides of every set", "Embed it."
        )
    groups = [slides[a.slide_id].entry.patient or a.slide_id for a, _ in pairs]
    first, second = (_read([pair[side] for pair in pairs], slides) for side in (0, 1))
    return PairFeatures(first, second, np.unique(groups, return_inverse=True)[1].astype(np.int64))


def _read(places: Sequence[Place], slides: Mapping[str, Found]) -> Float32[np.ndarray, "n d"]:
    rows: list[np.ndarray | None] = [None] * len(places)
    for slide_id in sorted({place.slide_id for place in places}):
        store = slides[slide_id].store
        row_of = {tuple(origin): row for row, origin in enumerate(store.origins.tolist())}
        features = store.features
        for number, place in enumerate(places):
            if place.slide_id != slide_id:
                continue
            row = row_of.get((place.x, place.y))
            if row is None:
                found = f"no tile of slide {slide_id} at x {place.x}, y {place.y}"
                raise UsageError(found, "origins of tiles that were embedded", "Mend the table of pairs.")
            rows[number] = features[row]
        store.__dict__.pop("features", None)  # the store keeps what it read
    return np.stack([row for row in rows if row is not None]).astype(np.float32)
