"""Draw the pictures of ``docs/concepts.md``: ``python docs/draw_concepts.py wsi-lmc-demo``.

Frames and views come from a synthetic slide that is drawn here, the batch effect from what ``wsi-lmc demo`` wrote; so
no picture shows a patient's tissue.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from wsi_lmc.grid import GridConfig, place_tiles
from wsi_lmc.slide import Sampling, Slide, open_slide
from wsi_lmc.stain import Drawn, SeparationConfig, render_views, separate, turned_planes
from wsi_lmc.synthetic import NORTH, SlideSpec, write_slide
from wsi_lmc.tissue import TissueConfig, find_tissue

HERE = Path(__file__).parent
FINE, COARSE = 0.5, 1.0  # um per target pixel
PLACE = (1280, 1280)  # level-0 pixels near which tiles are cut
FACTORS = (0.5, 1.0, 2.0)
COLOURS = ("#0072B2", "#D55E00")
_SHOWN = 112  # pixels of a view that are shown
_SHADES = 64  # of a picture's palette


@dataclass(frozen=True)
class Cut:
    """A tile as it is stored, and where it lies: ``origin`` x, y and ``side`` in level-0 pixels."""

    pixels: UInt8[np.ndarray, "h w 3"]
    origin: Int32[np.ndarray, " 2"]
    side: float


def main(demo: Path) -> None:
    """Write all three pictures beside this file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "slides" / "north.tif"
        write_slide(path, NORTH, SlideSpec(seed=11, width=3072, height=2304, mpp=0.25))
        with open_slide(path, "north") as slide:
            fine = draw_frames(slide)
    draw_views(fine.pixels)
    draw_batch_effect(demo)


def draw_frames(slide: Slide) -> Cut:
    """One place of a slide in its three frames, cut at two pixel sizes; returns the finer tile."""
    mask, overview = find_tissue(slide, TissueConfig())
    figure = Figure(figsize=(10.4, 3.55))
    left, middle, right = (figure.add_axes((x, 0.03, 0.27, 0.79)) for x in (0.02, 0.37, 0.71))
    left.imshow(overview.pixels, extent=(0, slide.geometry.size.width, slide.geometry.size.height, 0))
    left.set_title(f"the slide, level-0 pixels\n({slide.geometry.mpp.x:g} um each)", fontsize=9)
    cuts: list[Cut] = []
    for axes, mpp, colour in ((middle, FINE, COLOURS[0]), (right, COARSE, COLOURS[1])):
        grid = place_tiles(mask, slide.geometry, GridConfig(tile_mpp=mpp))
        middle_of_tiles = grid.origins + np.asarray(grid.sampling.footprint) / 2
        row = int(np.argmin(np.abs(middle_of_tiles - PLACE).sum(axis=1)))
        cut = _cut(slide, grid.origins[row], grid.sampling)
        cuts.append(cut)
        (x, y), side = cut.origin.tolist(), cut.side
        left.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=2, zorder=3 - mpp))
        axes.imshow(cut.pixels)
        axes.set_title(
            f"--tile-mpp {mpp:g}: 256 target pixels = {256 * mpp:g} um\n"
            f"origin ({x}, {y}), footprint {side:g} level-0 pixels",
            fontsize=9,
            color=colour,
        )
    for axes in (left, middle, right):
        axes.set_xticks([])
        axes.set_yticks([])
    _save(figure, "concepts-frames.png")
    return cuts[0]


def draw_views(tile: UInt8[np.ndarray, "h w 3"]) -> None:
    """One tile with less and more hematoxylin (rows) and eosin (columns)."""
    batch = torch.from_numpy(tile[None])
    vectors = separate(batch, SeparationConfig()).vectors
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    panels = figure.subplots(len(FACTORS), len(FACTORS))
    for row, h in enumerate(FACTORS):
        for column, e in enumerate(FACTORS):
            drawn = Drawn(torch.tensor([h, e]).expand(2, 1, 2), None, None, None, None, None, None, None)
            view = render_views(turned_planes(batch, drawn), vectors, drawn, "robust").a[0]
            _panel(panels[row, column], view.permute(1, 2, 0).numpy()[:_SHOWN, :_SHOWN], f"H × {h:g}, E × {e:g}")
    _save(figure, "concepts-views.png")


def draw_batch_effect(demo: Path) -> None:
    """Tiles of the demo's two sites in the plane, by site and by class, as ``wsi-lmc evaluate`` laid them out."""
    document = json.loads((demo / "evaluation" / "planes.json").read_text(encoding="utf-8"))
    sets = [one for one in document["sets"] if one["name"] in ("untrained", "LMC")]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    panels = figure.subplots(2, len(sets))
    for column, one in enumerate(sets):
        points = np.stack([one["x"], one["y"]], axis=1)
        for row, (kind, names) in enumerate((("site", one["sites"]), ("label", one["classes"]))):
            axes, numbers = panels[row, column], np.asarray(one[kind])
            for number, name in enumerate(names):
                axes.scatter(*points[numbers == number].T, s=5, color=COLOURS[number], alpha=0.6, lw=0, label=name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{one['name']}, by {'site' if kind == 'site' else 'tissue class'}", fontsize=9)
            if column == len(sets) - 1:
                axes.legend(fontsize=7, loc="lower right", markerscale=2)
    figure.suptitle(f"tiles of the demo's two sites, {sets[0]['way'].split(' (')[0]}", fontsize=9)
    _save(figure, "concepts-batch.png")


def _cut(slide: Slide, origin: Int32[np.ndarray, " 2"], sampling: Sampling) -> Cut:
    pixels = np.empty((1, sampling.tile.height, sampling.tile.width, 3), np.uint8)
    slide.read_tiles(slide.plan(origin[None], sampling), 0, pixels)
    return Cut(pixels[0], origin, sampling.footprint[0])


def _panel(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=8, pad=3)
    axes.axis("off")


def _save(figure: Figure, name: str) -> None:
    """Write a picture with a palette, which a page loads in a third of the time."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).quantize(_SHADES, dither=Image.Dither.NONE).save(HERE / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
