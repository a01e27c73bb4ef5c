"""Where a model looked: a number or more a tile, as GeoJSON for QuPath and as a picture over the slide's overview."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float64, Int32, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.stats import rankdata

from wsi_lmc.contours import tile_objects
from wsi_lmc.heads.slides import ATTENTION

_LONG_SIDE = 800  # pixels of a panel's picture, about as many as are shown
_VEIL = 0.25  # how white the overview becomes, so that its colours are not read as values
_COVER = 0.75  # share of a tile's colour in what is seen of it
_COLUMNS = 3


@dataclass(frozen=True)
class Place:
    """Where a slide's tiles lie: ``footprint`` is their width and height, all in level-0 pixels.

    ``size`` is the slide's width and height (None: as far as there are tiles), ``bounds`` x and y of the scanned area's
    corner, which is QuPath's origin. ``overview`` is a picture of the whole slide.
    """

    slide_id: str
    footprint: tuple[float, float]
    size: tuple[float, float] | None = None
    bounds: tuple[float, float] = (0.0, 0.0)
    overview: Path | None = None


@dataclass(frozen=True)
class TileMap:
    """Tiles of one slide and what was measured of each: a column of ``values`` for each of ``names``."""

    place: Place
    origins: Int32[np.ndarray, "n 2"]
    names: tuple[str, ...]
    values: Float[np.ndarray, "n m"]


@dataclass(frozen=True)
class _Panel:
    title: str
    values: Float64[np.ndarray, " n"]
    span: tuple[float, float]
    colours: str


def percentiles(values: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Rank of each value in percent: 100 is the highest; equal ones share theirs."""
    return np.asarray(rankdata(values), np.float64) * 100 / max(len(values), 1)


def to_geojson(tiles: TileMap) -> str:
    """A FeatureCollection of QuPath's tile objects, with what was measured of each, and the rank of its attention.

    QuPath crops a slide to its bounds, so their origin is subtracted.
    """
    place = tiles.place
    columns = dict(zip(tiles.names, tiles.values.T.astype(np.float64), strict=True))
    if ATTENTION in columns:
        columns[f"{ATTENTION} percentile"] = percentiles(columns[ATTENTION])
    corners = tiles.origins.astype(np.float64) - place.bounds
    features = tile_objects(place.slide_id, corners, place.footprint, columns)
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")) + "\n"


def draw_map(tiles: TileMap, path: Path) -> None:
    """Draw the values over the overview, or over white where there is none: PNG, a panel a value, with its scale.

    Attention is drawn twice: as multiples of its mean, so that a flat one looks flat, and by rank.
    """
    panels = _panels(tiles)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    overview, scale = _background(tiles)
    height, width = overview.shape[:2]
    figure = Figure(figsize=(6.2 * columns, 0.7 + rows * (0.4 + 5.2 * min(height / width, 2.0))), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(figure, axis, panel, (overview, _painted(tiles, panel.values, overview.shape[:2], scale)))
    figure.suptitle(tiles.place.slide_id, fontsize=11)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _panels(tiles: TileMap) -> list[_Panel]:
    columns = tiles.values.T.astype(np.float64)
    if tiles.names == (ATTENTION,):
        relative = columns[0] * len(columns[0])
        top = max(2.0, float(relative.max(initial=0)))
        return [
            _Panel("attention (1 = the mean of the slide's tiles)", relative, (0.0, top), "viridis"),
            _Panel("rank of attention within the slide, percent", percentiles(columns[0]), (0.0, 100.0), "viridis"),
        ]
    shown = range(1, 2) if len(columns) == 2 else range(len(columns))
    return [_Panel(tiles.names[row], columns[row], (0.0, 1.0), "cividis") for row in shown]


def _draw(
    figure: Figure, axis: Axes, panel: _Panel, layers: tuple[UInt8[np.ndarray, "y x 3"], Float64[np.ndarray, "y x"]]
) -> None:
    """Values over the overview, blended here: matplotlib would resample each layer several times."""
    overview, painted = layers
    scale = ScalarMappable(Normalize(*panel.span), panel.colours)
    there = np.isfinite(painted)
    blended = overview.copy()
    colours = scale.to_rgba(painted[there], bytes=True)[:, :3]
    blended[there] = np.rint(_COVER * colours + (1 - _COVER) * overview[there]).astype(np.uint8)
    axis.imshow(blended, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(panel.title, fontsize=10)
    figure.colorbar(scale, ax=axis, fraction=0.04, pad=0.02, alpha=_COVER)


def _background(tiles: TileMap) -> tuple[UInt8[np.ndarray, "y x 3"], tuple[float, float]]:
    """The overview, paled, and how many of its pixels a level-0 pixel takes along x and y."""
    place = tiles.place
    reach = (tiles.origins + np.asarray(place.footprint)).max(axis=0, initial=1.0)
    width, height = place.size or (float(reach[0]), float(reach[1]))
    pixels = cv2.imread(str(place.overview), cv2.IMREAD_COLOR_RGB) if place.overview else None
    shrink = _LONG_SIDE / max(width, height)
    if pixels is None:
        pixels = np.full((max(1, round(height * shrink)), max(1, round(width * shrink)), 3), 255, np.uint8)
    elif max(pixels.shape) > _LONG_SIDE:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    paled = cv2.addWeighted(pixels, 1 - _VEIL, np.full_like(pixels, 255), _VEIL, 0)
    return np.asarray(paled, np.uint8), (paled.shape[1] / width, paled.shape[0] / height)


def _painted(
    tiles: TileMap, values: Float64[np.ndarray, " n"], shape: Sequence[int], scale: tuple[float, float]
) -> Float64[np.ndarray, "y x"]:
    """Each tile's box filled with its value; NaN elsewhere. Where tiles overlap, the higher value is seen."""
    painted = np.full(tuple(shape), np.nan)
    starts = np.rint(tiles.origins * np.asarray(scale)).astype(int)
    ends = np.rint((tiles.origins + np.asarray(tiles.place.footprint)) * np.asarray(scale)).astype(int)
    for row in np.argsort(values, kind="stable"):
        (x0, y0), (x1, y1) = np.maximum(starts[row], 0), ends[row]
        painted[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = values[row]
    return painted
