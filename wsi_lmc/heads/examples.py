"""What a head learns from and is applied to: slides whose features are read when needed, and tiles as plain arrays."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from wsi_lmc.errors import UsageError
from wsi_lmc.labels import NO_CLASS


@dataclass(frozen=True)
class Case:
    """One slide: whose it is, what is known of it, and how its features are read.

    ``label`` is the slide's class, ``tile_labels`` those of its tiles (numbers, -1 where unknown); ``origins`` are x, y
    of the tiles in level-0 pixels. ``read`` gives one row a tile, in the order of ``origins``, anew at every call, so
    that a cohort need not fit in memory.
    """

    slide_id: str
    patient: str
    site: str
    label: int
    origins: Int32[np.ndarray, "n 2"]
    tile_labels: Int64[np.ndarray, " n"]
    read: Callable[[], Float[np.ndarray, "n d"]]

    @property
    def group(self) -> str:
        """What must stay on one side of a split: the patient, or the slide where the patient is not known."""
        return f"patient {self.patient}" if self.patient else f"slide {self.slide_id}"

    def draw(self, rows: Int64[np.ndarray, " n"], count: int, seed: int) -> Int64[np.ndarray, " m"]:
        """``count`` of some of its tiles, in order; all of them where there are no more, or where ``count`` is 0.

        The same seed draws the same tiles of a slide, whatever other slides there are.
        """
        return draw_rows(rows, count, (seed, self.slide_id))


@dataclass(frozen=True)
class Examples:
    """Labelled examples: features, class numbers below ``classes``, and the number of each one's group."""

    features: Float32[np.ndarray, "n d"]
    labels: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    classes: int

    def part(self, rows: np.ndarray) -> "Examples":
        """Some of them, by number or mask."""
        return Examples(self.features[rows], self.labels[rows], self.groups[rows], self.classes)


@dataclass(frozen=True)
class Bags:
    """Labelled slides as bags of tiles: one array a slide, its class number and the number of its group."""

    tiles: tuple[Float[np.ndarray, "_ d"], ...]
    labels: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    classes: int

    def part(self, rows: np.ndarray) -> "Bags":
        """Some of them, by number or mask."""
        chosen = np.arange(len(self.tiles))[rows]
        return Bags(tuple(self.tiles[row] for row in chosen), self.labels[rows], self.groups[rows], self.classes)


def draw_rows(rows: Int64[np.ndarray, " n"], count: int, by: tuple[int, str]) -> Int64[np.ndarray, " m"]:
    """``count`` of some rows of a slide, in order, drawn ``by`` a seed and the slide's id; all where there are no more.

    With a ``count`` of 0 there is no limit.
    """
    if not 0 < count < len(rows):
        return rows
    seed, slide_id = by
    rng = np.random.default_rng((seed, zlib.crc32(slide_id.encode())))
    return np.sort(rng.choice(rows, count, replace=False))


def group_numbers(cases: Sequence[Case]) -> Int64[np.ndarray, " s"]:
    """A number for each case's group."""
    return np.unique([case.group for case in cases], return_inverse=True)[1].astype(np.int64).reshape(-1)


def stack_tiles(cases: Sequence[Case], classes: int, per_slide: int, seed: int) -> Examples:
    """Labelled tiles of some slides, at most ``per_slide`` of each (0: all), drawn by ``seed``.

    Raises:
        UsageError: none has a label.
    """
    numbers = group_numbers(cases)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    for case, number in zip(cases, numbers, strict=True):
        rows = case.draw(np.nonzero(case.tile_labels != NO_CLASS)[0], per_slide, seed)
        if len(rows):
            features.append(_finite(case.read()[rows].astype(np.float32), case))
            labels.append(case.tile_labels[rows])
            groups.append(np.full(len(rows), number))
    if not features:
        raise UsageError("no labelled tile at the source", "labels/<slide_id>.csv, or a label in the manifest", "Add.")
    return Examples(np.concatenate(features), np.concatenate(labels), np.concatenate(groups), classes)


def collect_bags(cases: Sequence[Case], classes: int, per_slide: int, seed: int) -> Bags:
    """Labelled slides that have a tile, at most ``per_slide`` tiles of each (0: all), drawn by ``seed``.

    Raises:
        UsageError: none has a label.
    """
    known = [case for case in cases if case.label != NO_CLASS and len(case.origins)]
    if not known:
        raise UsageError("no labelled slide at the source", "a label in the manifest", "Fill its column label.")
    tiles = tuple(
        _finite(case.read()[case.draw(np.arange(len(case.origins)), per_slide, seed)], case) for case in known
    )
    labels = np.asarray([case.label for case in known], np.int64)
    return Bags(tiles, labels, group_numbers(known), classes)


def _finite(features: Float[np.ndarray, "n d"], case: Case) -> Float[np.ndarray, "n d"]:
    if not np.isfinite(features).all():
        raise UsageError(
            f"features of slide {case.slide_id} that are no numbers", "finite features", "Embed it again, in float32."
        )
    return features
