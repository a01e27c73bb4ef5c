"""Tiles of all sites in the plane, by site and by class: UMAP where it is installed, else principal components."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsi_lmc.evaluation.pictures import COLOURS, save
from wsi_lmc.evaluation.samples import equal_sites, gather
from wsi_lmc.evaluation.scores import FeatureSet

_MOST = 2000  # tiles of a panel
_FEWEST_FOR_UMAP = 50


@dataclass(frozen=True)
class Plane:
    """Tiles of one set in the plane, by the ``way`` named: a drawn sample of all ``of`` tiles.

    ``site`` and ``label`` are numbers among ``sites`` and ``classes``, labels -1 where they are not known.
    """

    name: str
    way: str
    of: int
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    site: tuple[int, ...]
    label: tuple[int, ...]


def planes_of(sets: Sequence[FeatureSet], seed: int = 0) -> list[Plane]:
    """Each set's tiles in the plane, equally many of every site."""
    found: list[Plane] = []
    for one in sets:
        whole = gather(one.slides, one.classes, one.tiles)
        sample = equal_sites(whole, max(2, _MOST // len(whole.sites)), seed)
        points, way = project(sample.features, seed)
        x, y = (tuple(float(f"{value:.4g}") for value in points[:, axis].tolist()) for axis in (0, 1))
        numbers = (tuple(sample.site.tolist()), tuple(sample.label.tolist()))
        found.append(Plane(one.name, way, one.tiles, sample.sites, one.classes, x, y, *numbers))
    return found


def plot_embeddings(planes: Sequence[Plane], path: Path) -> None:
    """A column a set; the upper row coloured by site, the lower by class where tiles have labels."""
    labelled = any(number >= 0 for plane in planes for number in plane.label)
    rows = 2 if labelled else 1
    figure = Figure(figsize=(3.6 * len(planes) + 1.6, 3.5 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, len(planes), squeeze=False)
    for column, plane in enumerate(planes):
        points = np.stack([plane.x, plane.y], axis=1)
        _scatter(panels[0, column], points, np.asarray(plane.site, np.int64), plane.sites)
        panels[0, column].set_title(plane.name, fontsize=10)
        if labelled:
            _scatter(panels[1, column], points, np.asarray(plane.label, np.int64), plane.classes)
    shown, of, ways = len(planes[-1].x), planes[-1].of, {plane.way for plane in planes}
    for row in range(rows):
        if panels[row, -1].collections:
            panels[row, -1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6)
    figure.suptitle(f"{', '.join(sorted(ways))}; {shown} of {of} tiles, equally many a site", fontsize=10)
    save(figure, path)


def project(features: Float[np.ndarray, "n d"], seed: int) -> tuple[Float64[np.ndarray, "n 2"], str]:
    """Standardised features in the plane, and the name of the way they got there."""
    deviation = features.std(axis=0)
    scaled = ((features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)).astype(np.float64)
    if importlib.util.find_spec("umap") is not None and len(scaled) >= _FEWEST_FOR_UMAP:
        return _umap(scaled, seed), "UMAP"
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    plane = np.zeros((len(scaled), 2))
    plane[:, : min(2, len(values))] = left[:, :2] * values[:2]
    installed = importlib.util.find_spec("umap") is not None
    return plane, "two principal components" if installed else "two principal components (umap-learn is not installed)"


def _umap(scaled: Float64[np.ndarray, "n d"], seed: int) -> Float64[np.ndarray, "n 2"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of the part that wants TensorFlow, which is not used
        from umap import UMAP  # pyright: ignore[reportMissingImports]

        found = UMAP(random_state=seed, n_jobs=1).fit_transform(scaled)
    return np.asarray(found, np.float64)


def _scatter(
    axes: Axes, plane: Float64[np.ndarray, "n 2"], kind: Int64[np.ndarray, " n"], names: Sequence[str]
) -> None:
    order = np.random.default_rng(0).permutation(len(plane))  # so that no kind covers another
    palette = np.asarray([COLOURS[number % len(COLOURS)] for number in range(max(1, len(names)))])
    colours = np.where(kind >= 0, palette[kind], "0.85")
    size = 7 if len(plane) > 500 else 14
    axes.scatter(*plane[order].T, s=size, c=colours[order].tolist(), alpha=0.6, linewidths=0)
    for number in np.unique(kind):
        label = names[number] if number >= 0 else "no label"
        axes.scatter([], [], s=14, color=palette[number] if number >= 0 else "0.85", label=label)
    axes.set_xticks([])
    axes.set_yticks([])
