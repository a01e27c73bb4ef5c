"""Where the labelled tiles of a slide lie: in and out of lesions, around cells, or by a mask of grades."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float64, Int64

from wsi_lmc.annotations import (
    CODINGS,
    Annotation,
    ShareLimits,
    centred_on,
    grade_labels,
    inside_shares,
    lesion_labels,
    read_asap,
    read_grades,
)
from wsi_lmc.errors import UsageError
from wsi_lmc.grid import TileGrid
from wsi_lmc.provenance import file_fingerprint, fingerprint
from wsi_lmc.slide import Slide


class Places(Protocol):
    """Chooses the labelled tiles of a slide."""

    def choose(self, slide: Slide, grid: TileGrid) -> tuple[TileGrid, list[str]]:
        """Tiles to cut, and the label of each or an empty text; ``grid`` is all of the slide's tissue."""
        ...

    def identity(self) -> str:
        """A fingerprint of all that decides the choice."""
        ...


@dataclass(frozen=True)
class LesionPlaces:
    """Tiles inside and outside lesions, at most ``each`` of either kind a slide, drawn at random by slide.

    ``outlines`` is ASAP's XML; None for a slide without lesions. ``kinds`` are the labels that are taken.
    """

    outlines: Path | None
    limits: ShareLimits
    each: int
    kinds: tuple[str, ...]
    seed: int

    def choose(self, slide: Slide, grid: TileGrid) -> tuple[TileGrid, list[str]]:
        """See :class:`Places`."""
        annotation = read_asap(self.outlines) if self.outlines else Annotation(())
        shares = inside_shares(annotation, grid.origins, grid.sampling.footprint)
        labels = np.asarray(lesion_labels(shares, self.limits) or [""])[: len(grid)]
        rng = np.random.default_rng([self.seed, *slide.slide_id.encode()])
        drawn = [rng.permutation(np.flatnonzero(labels == kind))[: self.each] for kind in self.kinds]
        rows = np.sort(np.concatenate(drawn)).astype(np.int64)
        return _some(grid, rows), labels[rows].tolist()

    def identity(self) -> str:
        """See :class:`Places`."""
        outlines = annotations_fingerprint(self.outlines) if self.outlines else ""
        return fingerprint([outlines, self.limits, self.each, self.kinds, self.seed])


@dataclass(frozen=True)
class SomePlaces:
    """At most ``each`` tiles of the slide's tissue, drawn at random by slide, without labels."""

    each: int
    seed: int

    def choose(self, slide: Slide, grid: TileGrid) -> tuple[TileGrid, list[str]]:
        """See :class:`Places`."""
        rng = np.random.default_rng([self.seed, *slide.slide_id.encode()])
        rows = np.sort(rng.permutation(len(grid))[: self.each])
        return _some(grid, rows), [""] * len(rows)

    def identity(self) -> str:
        """See :class:`Places`."""
        return fingerprint([self.each, self.seed])


@dataclass(frozen=True)
class CellPlaces:
    """One tile around each cell: ``cells`` are x and y in level-0 pixels, and the label.

    Of two cells whose tiles would be the same, since both lie in one corner, the one named first in ``kinds`` counts.
    """

    cells: tuple[tuple[float, float, str], ...]
    kinds: tuple[str, ...]

    def choose(self, slide: Slide, grid: TileGrid) -> tuple[TileGrid, list[str]]:
        """See :class:`Places`."""
        size = slide.geometry.size
        ordered = sorted(self.cells, key=lambda cell: self.kinds.index(cell[2]))
        centres: Float64[np.ndarray, "n 2"] = np.asarray([cell[:2] for cell in ordered], np.float64).reshape(-1, 2)
        origins = centred_on(centres, grid.sampling.footprint, (size.width, size.height))
        _, rows = np.unique(origins, axis=0, return_index=True)
        whole = np.ones(len(rows), np.float32)
        around = replace(grid, origins=origins[rows], tissue_fraction=whole, padded=np.zeros(len(rows), bool))
        return around, [ordered[row][2] for row in rows.tolist()]

    def identity(self) -> str:
        """See :class:`Places`."""
        return fingerprint([self.cells, self.kinds])


@dataclass(frozen=True)
class MaskPlaces:
    """All tiles of the tissue, with the grade that covers at least ``least`` of each in a mask of the whole slide."""

    mask: Path
    coding: str
    page: int
    least: float

    def choose(self, slide: Slide, grid: TileGrid) -> tuple[TileGrid, list[str]]:
        """See :class:`Places`."""
        coding, size = CODINGS[self.coding], slide.geometry.size
        values = read_grades(self.mask, coding, self.page)
        downsample = (size.width / values.shape[1], size.height / values.shape[0])
        return grid, grade_labels(values, coding, downsample, (grid.origins, grid.sampling.footprint), self.least)

    def identity(self) -> str:
        """See :class:`Places`."""
        return fingerprint([annotations_fingerprint(self.mask), self.coding, self.page, self.least])


def annotations_fingerprint(path: Path) -> str:
    """Fingerprint of a file of annotations.

    Raises:
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"no file {path}", "the annotations of this image", "Download it; --check names all missing.")
    return file_fingerprint(path)


def _some(grid: TileGrid, rows: Int64[np.ndarray, " n"]) -> TileGrid:
    return replace(
        grid, origins=grid.origins[rows], tissue_fraction=grid.tissue_fraction[rows], padded=grid.padded[rows]
    )
