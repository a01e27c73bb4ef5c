"""Tissue as concentrations of H and E: glands or diffuse cells, stroma, fat, folds, on glass.

The two kinds of tissue have the same nuclei (number, size, concentration), the same share of bare holes and the same
mean concentrations; only the arrangement differs. So colour statistics of a tile say nothing about its class.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

CLASSES = ("glandular", "diffuse")
GLANDULAR, DIFFUSE, NO_CLASS = 0, 1, 255
_FAT = 2  # while drawing only: belongs to no class
_NUCLEUS_EVERY = 620  # level-0 pixels of tissue for one nucleus
_NUCLEUS_AREA = 165  # level-0 pixels covered by one
_GLAND_EVERY = 21_000
_REGION_PX = 420  # sigma of the noise that lays out the classes: regions of several tiles


@dataclass(frozen=True)
class SlideSpec:
    """One slide: size in level-0 pixels, microns per pixel, artefacts; everything else follows from ``seed``."""

    seed: int
    width: int = 2048
    height: int = 2560
    mpp: float = 0.5
    pen: bool = False
    fold: bool = False


@dataclass(frozen=True)
class Drawing:
    """Stain before any scanner: concentrations of H and E, tissue, class of each pixel (``NO_CLASS`` outside)."""

    concentrations: Float32[np.ndarray, "h w 2"]
    tissue: Bool[np.ndarray, "h w"]
    classes: UInt8[np.ndarray, "h w"]


def draw(spec: SlideSpec) -> Drawing:
    """Draw a slide's tissue."""
    rng = np.random.default_rng(spec.seed)
    tissue = _outline(spec, rng)
    layout = _lay_out(tissue, rng)
    nuclei, holes = _cells(layout, rng)
    eosin = _matrix(tissue.shape, rng)
    eosin *= 1.0 - 0.55 * (nuclei > 0)  # chromatin takes little eosin
    hematoxylin = nuclei + 0.10 * eosin  # a little hematoxylin is everywhere
    keep = cv2.GaussianBlur((tissue & ~holes).astype(np.float32), (0, 0), 1.2)
    stack = np.stack([hematoxylin, eosin], axis=2)
    classes = np.where(tissue & (layout != _FAT), layout, NO_CLASS).astype(np.uint8)
    _even_out(stack, np.where(holes, NO_CLASS, classes))
    stack *= keep[..., None]
    if spec.fold:
        stack *= (1.0 + _fold(tissue.shape, rng))[..., None]
    return Drawing(np.ascontiguousarray(stack, np.float32), tissue, classes)


def draw_pen(pixels: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> Bool[np.ndarray, "h w"]:
    """Draw a stroke of a marker pen beside the tissue, in place; returns where it lies."""
    height, width = pixels.shape[:2]
    ink = [(25, 110, 70), (35, 60, 150), (30, 28, 32)][int(rng.integers(3))]
    steps = np.linspace(0, 1, 60)
    x = width * (0.06 + 0.03 * np.sin(steps * 5 + rng.uniform(0, 6)))
    y = height * (0.15 + 0.7 * steps)
    stroke = np.zeros((height, width), np.uint8)
    points = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(stroke, [points.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=width // 40)
    share = cv2.GaussianBlur(stroke, (0, 0), 2).astype(np.float32)[..., None] / 255.0 * 0.92
    pixels[...] = np.rint(pixels * (1 - share) + np.asarray(ink, np.float32) * share).astype(np.uint8)
    return stroke > 0


def _smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Noise of unit variance, smooth over ``sigma`` pixels, made small and enlarged."""
    reduce = max(1, int(sigma / 3))
    small = (shape[0] // reduce + 2, shape[1] // reduce + 2)
    noise = cv2.GaussianBlur(rng.normal(0, 1, small).astype(np.float32), (0, 0), max(sigma / reduce, 0.6))
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return np.asarray(cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _outline(spec: SlideSpec, rng: np.random.Generator) -> Bool[np.ndarray, "h w"]:
    """One large piece of tissue with an uneven border, off the middle."""
    y, x = np.mgrid[0 : spec.height, 0 : spec.width].astype(np.float32)
    cx, cy = spec.width * rng.uniform(0.53, 0.57), spec.height * rng.uniform(0.47, 0.53)
    radius = np.hypot((x - cx) / (0.40 * spec.width), (y - cy) / (0.44 * spec.height))
    return radius + 0.07 * _smooth_noise((spec.height, spec.width), 120, rng) < 1.0


def _lay_out(tissue: Bool[np.ndarray, "h w"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w"]:
    """Which kind of tissue lies where: half glandular, half diffuse, and a little fat."""
    shape = (tissue.shape[0], tissue.shape[1])
    noise = _smooth_noise(shape, _REGION_PX, rng)
    middle = float(np.median(noise[tissue])) if tissue.any() else 0.0
    layout = np.where(noise > middle, DIFFUSE, GLANDULAR).astype(np.uint8)
    fat = _smooth_noise(shape, 220, rng)
    layout[fat > 2.0] = _FAT
    return np.where(tissue, layout, NO_CLASS).astype(np.uint8)


def _cells(
    layout: UInt8[np.ndarray, "h w"], rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Hematoxylin in nuclei, and the holes (lumina, clefts, fat) that nothing stains."""
    holes = np.zeros(layout.shape, np.uint8)
    canvas = np.zeros(layout.shape, np.uint8)
    rings = _glands(layout, holes, rng)
    _punch(layout == _FAT, holes, (17, 30), 0.75, rng)
    lumen_share = float((holes[layout == GLANDULAR] > 0).mean()) if (layout == GLANDULAR).any() else 0.0
    _punch(layout == DIFFUSE, holes, (7, 13), lumen_share, rng)
    wanted = int((layout == GLANDULAR).sum() / _NUCLEUS_EVERY)
    chosen = rings[rng.permutation(len(rings))[: int(wanted * 0.8)]]
    for place in np.concatenate([chosen, _scatter(layout == GLANDULAR, wanted - len(chosen), rng)]):
        _nucleus(canvas, place, rng)
    _fill_alike(canvas, (layout == GLANDULAR) & (holes == 0), (layout == DIFFUSE) & (holes == 0), rng)
    grain = 1.0 + 0.22 * _smooth_noise(layout.shape, 1.6, rng)
    return canvas.astype(np.float32) / 100.0 * grain, holes > 0


def _fill_alike(
    canvas: UInt8[np.ndarray, "h w"],
    model: Bool[np.ndarray, "h w"],
    where: Bool[np.ndarray, "h w"],
    rng: np.random.Generator,
) -> None:
    """Scatter nuclei ``where`` until they cover as much of it as they cover of the ``model`` area."""
    if not (model.any() and where.any()):
        return
    goal = float((canvas[model] > 0).mean())
    for _ in range(12):
        missing = goal - float((canvas[where] > 0).mean())
        if missing < 0.002:
            return
        for place in _scatter(where, max(1, int(missing * where.sum() / _NUCLEUS_AREA)), rng):
            _nucleus(canvas, place, rng)


def _glands(
    layout: UInt8[np.ndarray, "h w"], holes: UInt8[np.ndarray, "h w"], rng: np.random.Generator
) -> Float32[np.ndarray, "n 3"]:
    """Cut lumina into ``holes``; returns x, y and direction of the places for nuclei around them."""
    count = int((layout == GLANDULAR).sum() / _GLAND_EVERY * 3)
    middles: list[np.ndarray] = []
    places = [np.zeros((0, 3), np.float32)]
    for x, y, _ in _scatter(layout == GLANDULAR, count, rng):
        radius, stretch, tilt = rng.uniform(24, 42), rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        middle = np.array([x, y])
        if any(np.hypot(*(middle - other)) < 128 for other in middles):
            continue
        middles.append(middle)
        axes = (int(radius), int(radius * stretch))
        cv2.ellipse(holes, (int(x), int(y)), axes, float(np.degrees(tilt)), 0, 360, 1, -1, cv2.LINE_8)
        for distance, spacing in ((16, 13), (29, 16)):  # two rows of nuclei behind a rim of cytoplasm
            around = np.arange(0, 2 * np.pi, spacing / (radius + distance))
            around = around + rng.normal(0, 0.06, len(around))
            u, v = (radius + distance) * np.cos(around), (radius * stretch + distance) * np.sin(around)
            ring = np.stack([u * np.cos(tilt) - v * np.sin(tilt), u * np.sin(tilt) + v * np.cos(tilt)], axis=1)
            ring = ring + middle + rng.normal(0, 1.5, ring.shape)
            places.append(np.column_stack([ring, around + tilt]).astype(np.float32))
    found = np.concatenate(places)
    inside = _at(layout, found) == GLANDULAR
    return found[inside]


def _scatter(where: Bool[np.ndarray, "h w"], count: int, rng: np.random.Generator) -> Float32[np.ndarray, "n 3"]:
    """Places spread evenly over an area, with directions that stream along a smooth field."""
    flow = _smooth_noise((where.shape[0], where.shape[1]), 60, rng)
    ys, xs = np.nonzero(where[::4, ::4])
    if not len(ys) or count <= 0:
        return np.zeros((0, 3), np.float32)
    index = rng.integers(len(ys), size=count)
    places = np.stack([xs[index], ys[index]], axis=1) * 4 + rng.uniform(0, 4, (count, 2))
    direction = flow[ys[index] * 4, xs[index] * 4] * 2 + rng.normal(0, 0.25, count)
    return np.column_stack([places, direction]).astype(np.float32)


def _punch(
    where: Bool[np.ndarray, "h w"],
    holes: UInt8[np.ndarray, "h w"],
    radii: tuple[int, int],
    share: float,
    rng: np.random.Generator,
) -> None:
    """Cut round holes until ``share`` of the area is open."""
    area = int(where.sum())
    mean_area = np.pi * ((radii[0] + radii[1]) / 2) ** 2
    for _ in range(12):
        missing = share - (float((holes[where] > 0).mean()) if area else share)
        if missing < 0.005:
            return
        for x, y, _angle in _scatter(where, max(1, int(missing * area / mean_area)), rng):
            cv2.circle(holes, (int(x), int(y)), int(rng.integers(radii[0], radii[1] + 1)), 1, -1)


def _nucleus(canvas: UInt8[np.ndarray, "h w"], place: Float32[np.ndarray, "3"], rng: np.random.Generator) -> None:
    """An ellipse with a darker rim; hematoxylin in hundredths."""
    long, short = rng.uniform(7.0, 10.0), rng.uniform(4.6, 6.8)
    stained = int(rng.uniform(75, 125))
    center = (int(place[0] * 16), int(place[1] * 16))
    axes, angle = (int(long * 16), int(short * 16)), float(np.degrees(place[2])) + 90.0
    cv2.ellipse(canvas, center, axes, angle, 0, 360, stained, -1, cv2.LINE_AA, 4)
    cv2.ellipse(canvas, center, axes, angle, 0, 360, min(stained + 35, 255), 1, cv2.LINE_AA, 4)


def _matrix(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Eosin in cytoplasm and stroma: wavy fibres over slow changes of density."""
    size = (shape[0], shape[1])
    warp = _smooth_noise(size, 90, rng) * 26 + _smooth_noise(size, 18, rng) * 3
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    fibres = np.sin((x * 0.5 + y + warp * 3) / 4.2) * 0.5 + 0.5
    eosin = 0.42 + 0.16 * fibres * (0.6 + 0.4 * _smooth_noise(size, 40, rng)) + 0.07 * _smooth_noise(size, 3, rng)
    return np.clip(eosin + 0.05 * _smooth_noise(size, 150, rng), 0.08, 1.2).astype(np.float32)


def _fold(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """1 along a band where the tissue lies double, 0 elsewhere."""
    band = np.zeros(shape[:2], np.uint8)
    height, width = shape[:2]
    start = (int(width * rng.uniform(0.3, 0.5)), int(height * 0.2))
    end = (int(width * rng.uniform(0.5, 0.8)), int(height * 0.8))
    cv2.line(band, start, end, 1, max(6, width // 60))
    return cv2.GaussianBlur(band.astype(np.float32), (0, 0), 3)


def _even_out(stack: Float32[np.ndarray, "h w 2"], classes: UInt8[np.ndarray, "h w"]) -> None:
    """Give the stained pixels of both classes the same mean and covariance of H and E, in place."""
    stained = stack[..., 1] > 0.03
    parts = [stained & (classes == number) for number in (GLANDULAR, DIFFUSE)]
    if not all(part.any() for part in parts):
        return
    means = [stack[part].mean(axis=0, dtype=np.float64) for part in parts]
    roots = [np.linalg.cholesky(np.cov(stack[part].T.astype(np.float64)) + 1e-9 * np.eye(2)) for part in parts]
    mean, root = np.mean(means, axis=0), np.mean(roots, axis=0)
    for part, own_mean, own_root in zip(parts, means, roots, strict=True):
        change = root @ np.linalg.inv(own_root)
        stack[part] = np.maximum(mean + (stack[part] - own_mean) @ change.T, 0).astype(np.float32)


def _at(layout: UInt8[np.ndarray, "h w"], places: Float32[np.ndarray, "n 3"]) -> UInt8[np.ndarray, " n"]:
    """The kind of tissue at each place; outside the slide none."""
    x, y = places[:, 0].astype(int), places[:, 1].astype(int)
    inside = (x >= 0) & (y >= 0) & (x < layout.shape[1]) & (y < layout.shape[0])
    found = np.full(len(places), NO_CLASS, np.uint8)
    found[inside] = layout[y[inside], x[inside]]
    return found
