"""Tiles as they are measured: drawn with a seed, equally many a site, the same ones for every encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.scores import FeatureSet, SlideFeatures


@dataclass(frozen=True)
class Sample:
    """Some tiles: features, number of site and group, label (-1: none), drawn from ``of`` tiles."""

    features: Float32[np.ndarray, "n d"]
    site: Int64[np.ndarray, " n"]
    group: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    of: int

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.site)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.group))

    def rows(self, which: np.ndarray) -> "Sample":
        """Some of its tiles, by number or mask."""
        return replace(
            self,
            features=self.features[which],
            site=self.site[which],
            group=self.group[which],
            label=self.label[which],
        )

    def at(self, number: int) -> "Sample":
        """Tiles of one site."""
        return self.rows(np.nonzero(self.site == number)[0])


def common_tiles(sets: Sequence[FeatureSet]) -> tuple[list[FeatureSet], int]:
    """The sets with the tiles that are in all of them, row by row, and how many of the first were left out for that.

    Raises:
        UsageError: they have no tile in common, or nothing tells which tiles are the same.
    """
    if len(sets) < 2 or all(_same_tiles(sets[0], other) for other in sets[1:]):
        return list(sets), 0
    kept = {slide.slide_id: _keys(slide) for slide in sets[0].slides}
    for other in sets[1:]:
        theirs = {slide.slide_id: _keys(slide) for slide in other.slides}
        kept = {name: np.intersect1d(keys, theirs[name]) for name, keys in kept.items() if name in theirs}
    kept = {name: keys for name, keys in kept.items() if len(keys)}
    if not kept:
        raise UsageError("features of different tiles", "tiles that every encoder has seen", "Embed the same stores.")
    whole = sum(len(slide.labels) for slide in sets[0].slides)
    common = []
    for one in sets:
        by_id = {slide.slide_id: slide for slide in one.slides}
        common.append(replace(one, slides=tuple(_only(by_id[name], keys) for name, keys in kept.items())))
    return common, whole - sum(len(keys) for keys in kept.values())


def thin(one: FeatureSet, per_site: int, seed: int) -> FeatureSet:
    """The set with ``per_site`` tiles a site at the most, drawn from all of its slides' tiles alike."""
    numbers = _drawn_by_site(one.slides, per_site, seed)
    slides = [_rows(slide, rows) for slide, rows in zip(one.slides, numbers, strict=True) if len(rows)]
    return replace(one, slides=tuple(slides))


def gather(slides: Sequence[SlideFeatures], classes: tuple[str, ...], of: int) -> Sample:
    """All tiles of some slides as one sample.

    Raises:
        UsageError: features that are not finite.
    """
    sites = tuple(sorted({slide.site for slide in slides}))
    groups = sorted({slide.patient or slide.slide_id for slide in slides})
    for slide in slides:
        if not np.isfinite(slide.features).all():
            raise UsageError(f"features of {slide.slide_id} that are no numbers", "finite features", "Embed it again.")
    counts = [len(slide.labels) for slide in slides]
    return Sample(
        np.concatenate([slide.features.astype(np.float32) for slide in slides]),
        np.repeat([sites.index(slide.site) for slide in slides], counts).astype(np.int64),
        np.repeat([groups.index(slide.patient or slide.slide_id) for slide in slides], counts).astype(np.int64),
        np.concatenate([slide.labels for slide in slides]),
        sites,
        classes,
        of,
    )


def equal_sites(sample: Sample, most: int, seed: int) -> Sample:
    """Equally many tiles of every site, ``most`` at the most."""
    return _equal_cells(sample, sample.site, most, seed)


def equal_cells(sample: Sample, most: int, seed: int) -> Sample:
    """Equally many tiles of every class at every site, of classes that all sites have; ``most`` a site at the most."""
    count = len(np.unique(sample.site))
    shared = [
        kind for kind in np.unique(sample.label[sample.label >= 0])
        if len(np.unique(sample.site[sample.label == kind])) == count
    ]  # fmt: skip
    labelled = sample.rows(np.isin(sample.label, shared))
    cell = labelled.site * (len(sample.classes) + 1) + labelled.label
    return _equal_cells(labelled, cell, max(1, most // max(1, len(shared))), seed)


def _equal_cells(sample: Sample, cell: Int64[np.ndarray, " n"], most: int, seed: int) -> Sample:
    rng = np.random.default_rng((seed, 1))
    members = [np.nonzero(cell == number)[0] for number in np.unique(cell)]
    count = min([most, *(len(rows) for rows in members)])
    if not members:
        return sample
    return sample.rows(np.sort(np.concatenate([rng.choice(rows, count, replace=False) for rows in members])))


def _drawn_by_site(slides: Sequence[SlideFeatures], per_site: int, seed: int) -> list[Int64[np.ndarray, " _"]]:
    numbers = [np.arange(len(slide.labels)) for slide in slides]
    for place, site in enumerate(sorted({slide.site for slide in slides})):
        own = [number for number, slide in enumerate(slides) if slide.site == site]
        own.sort(key=lambda number: slides[number].slide_id)
        counts = [len(numbers[number]) for number in own]
        if 0 < per_site < sum(counts):
            rng = np.random.default_rng((seed, 0, place))
            chosen = np.sort(rng.choice(sum(counts), per_site, replace=False))
            ends = np.cumsum(counts)
            for number, end, count in zip(own, ends, counts, strict=True):
                numbers[number] = chosen[(chosen >= end - count) & (chosen < end)] - (end - count)
    return numbers


def _same_tiles(one: FeatureSet, other: FeatureSet) -> bool:
    """Whether two sets have the same slides in the same order, and of each the same tiles as far as is known."""
    if [slide.slide_id for slide in one.slides] != [slide.slide_id for slide in other.slides]:
        return False
    return all(
        len(a.labels) == len(b.labels)
        and (a.origins is None or b.origins is None or np.array_equal(a.origins, b.origins))
        for a, b in zip(one.slides, other.slides, strict=True)
    )


def _keys(slide: SlideFeatures) -> Int64[np.ndarray, " n"]:
    """One number for each tile's origin."""
    if slide.origins is None:
        raise UsageError(f"features of {slide.slide_id} without origins", "origins of the tiles", "Embed it again.")
    origins = slide.origins.astype(np.int64)
    return (origins[:, 0] << 32) + origins[:, 1]


def _only(slide: SlideFeatures, kept: Int64[np.ndarray, " m"]) -> SlideFeatures:
    """The tiles whose keys are ``kept``, in their order."""
    keys = _keys(slide)
    order = np.argsort(keys, kind="stable")
    return _rows(slide, order[np.searchsorted(keys[order], kept)])


def _rows(slide: SlideFeatures, rows: Int64[np.ndarray, " m"]) -> SlideFeatures:
    return replace(
        slide,
        features=slide.features[rows],
        labels=slide.labels[rows],
        origins=None if slide.origins is None else slide.origins[rows],
    )
