"""Which values a slide's tiles have, and each of them as a layer: read or computed when it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float32, Float64

from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.labels import read_labels
from wsi_lmc.viewer.blocks import FeatureBlocks
from wsi_lmc.viewer.caching import Cache
from wsi_lmc.viewer.layers import (
    Layer,
    cluster_layer,
    component_layer,
    kept_layer,
    label_layer,
    score_layer,
    similarity_layer,
    tissue_layer,
)
from wsi_lmc.viewer.nearest import scores
from wsi_lmc.viewer.outline import read_outline
from wsi_lmc.viewer.places import Places
from wsi_lmc.viewer.scores import Classification, TileScores, read_scores, score_names
from wsi_lmc.viewer.sights import Sight, Sights, UnknownError
from wsi_lmc.viewer.space import Space, fit_space
from wsi_lmc.viewer.tiles import Tiles

KEPT, TISSUE, COMPONENTS, CLUSTERS, SIMILARITY, LABELS, SCORE = (
    "kept", "tissue", "components", "clusters", "similarity", "labels", "score",
)  # fmt: skip
_KEPT_LAYERS = 24


@dataclass(frozen=True)
class Offer:
    """A value that a slide has: ``name`` asks for it, ``title`` is shown; of ``needs`` a tile must be picked first."""

    name: str
    title: str
    needs_tile: bool = False


class Values:
    """Values of tiles, for several threads."""

    def __init__(
        self, sights: Sights, places: Places, blocks: FeatureBlocks, classifications: Sequence[Classification]
    ) -> None:
        self._sights, self._places, self._blocks = sights, places, blocks
        self._classifications = tuple(classifications)
        self._layers: Cache[object, Layer] = Cache(_KEPT_LAYERS, lambda _: 1)
        self._scores: Cache[object, TileScores | None] = Cache(_KEPT_LAYERS, lambda _: 1)
        self._names: Cache[object, tuple[str, ...]] = Cache(_KEPT_LAYERS, lambda _: 1)
        self._space: Space | None = None
        self._fitting = Lock()

    def offers(self, sight: Sight) -> list[Offer]:
        """What can be shown of a slide."""
        found: list[Offer] = []
        if sight.tiles is not None and len(sight.tiles):
            found += [Offer(KEPT, "Kept and rejected tiles"), Offer(TISSUE, "Tissue in the tile")]
            if sight.files.labels is not None:
                found.append(Offer(LABELS, "Labels of tiles"))
        if sight.featured is not None and len(sight.featured):
            found += [
                Offer(COMPONENTS, "Features as colours"),
                Offer(CLUSTERS, "Clusters of features"),
                Offer(SIMILARITY, "Similar to the tile clicked on", needs_tile=True),
            ]
        for number, each in enumerate(self._classifications):
            of = f" ({each.name})" if len(self._classifications) > 1 else ""
            names = self._names.get((sight, number), partial(score_names, each, sight.row.slide_id))
            for place, name in enumerate(names):
                found.append(Offer(f"{SCORE}-{number}-{place}", f"{name.capitalize()}{of}"))
        return found

    def layer(self, sight: Sight, name: str, to: tuple[str, int] | None = None) -> Layer:
        """A value of a slide's tiles; ``to`` is slide and row of the tile that similarity is with.

        Raises:
            UnknownError: the slide has no such value.
            StoreError: its features cannot be read.
            UsageError: scores or labels cannot be read.
        """
        offer = next((offer for offer in self.offers(sight) if offer.name == name), None)
        if offer is None or (offer.needs_tile and to is None):
            raise UnknownError(name)
        return self._layers.get((sight, name, to), lambda: self._make(sight, name, to))

    def at(self, sight: Sight, row: int) -> list[tuple[str, float]]:
        """What is known of a tile, by titles: its values that have been looked at, and its share of tissue."""
        tiles = sight.table
        found = [("Tissue in the tile", float(tiles.tissue_fraction[row]))]
        for offer in self.offers(sight):
            if offer.name.startswith(SCORE):
                values = self.layer(sight, offer.name).values
                if values is not None and len(values) == len(tiles) and np.isfinite(values[row]):
                    found.append((offer.title, float(values[row])))
        return found

    def space(self) -> Space:
        """Components and clusters of the cohort's features, fitted when first asked for.

        Raises:
            StoreError: no features can be read.
        """
        with self._fitting:
            if self._space is None:
                self._space = fit_space(self._blocks, [path for _, path in self._places.features()])
            return self._space

    def _make(self, sight: Sight, name: str, to: tuple[str, int] | None) -> Layer:
        tiles = sight.table
        if name == KEPT:
            cut = sight.cut or tiles
            return kept_layer(cut, read_outline(sight.files.contour, cut.bounds) if sight.files.contour else [])
        if name == TISSUE:
            return tissue_layer(sight.cut or tiles)
        if name == LABELS and sight.files.labels is not None:
            return label_layer(tiles, _labels(sight.files.labels, tiles))
        if name == SIMILARITY and to is not None:
            return self._similarity(sight, to)
        if name in (COMPONENTS, CLUSTERS):
            space = self.space()
            make = component_layer if name == COMPONENTS else cluster_layer
            return make(tiles, space, self._components(sight, space))
        return self._score(sight, tiles, name)

    def _components(self, sight: Sight, space: Space) -> Float64[np.ndarray, "n c"]:
        path = sight.features
        if self._blocks.head(path).encoder != space.encoder:
            raise StoreError("features of another encoder", "the cohort's", "View one encoder's features at a time.")
        parts = [space.components(np.nan_to_num(block)) for _, block in self._blocks.each(path)]
        return np.concatenate([np.empty((0, len(space.axes))), *parts])

    def _similarity(self, sight: Sight, to: tuple[str, int]) -> Layer:
        wanted, path = self._sights.of(to[0]), sight.features
        if wanted.featured is None or not 0 <= to[1] < len(wanted.featured):
            raise UnknownError(SIMILARITY)
        if self._blocks.head(path).encoder != self._blocks.head(wanted.features).encoder:
            raise StoreError("features of another encoder", "the tile's", "View one encoder's features at a time.")
        vector = self._blocks.row(wanted.features, to[1])
        parts: list[Float32[np.ndarray, " m"]] = [values for _, values in scores(self._blocks, path, vector)]
        values = np.concatenate([np.empty(0, np.float32), *parts])
        return similarity_layer(
            sight.table, np.where(np.isfinite(values), values, np.nan), f"tile {to[1] + 1} of {to[0]}"
        )

    def _score(self, sight: Sight, tiles: Tiles, name: str) -> Layer:
        _, number, place = name.split("-")
        classification = self._classifications[int(number)]
        found = self._scores.get(
            (sight, number),
            lambda: read_scores(classification, sight.row.slide_id, (tiles.bounds.x, tiles.bounds.y)),
        )
        if found is None or int(place) >= len(found.names):
            raise UnknownError(name)
        values = found.aligned(tiles.stored, int(place))
        return score_layer(tiles, found.names[int(place)], values, classification.about)


def _labels(path: Path, tiles: Tiles) -> list[str]:
    try:
        known = read_labels(path)
    except (OSError, UsageError) as error:
        raise UsageError("labels that cannot be read", "a table of x, y, label", "Mend labels/ of the run.") from error
    return [known.get((x, y), "") for x, y in tiles.stored.tolist()]
