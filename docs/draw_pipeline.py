"""Draw ``docs/pipeline.png`` from what ``wsi-lmc demo`` wrote: ``python docs/draw_pipeline.py wsi-lmc-demo``.

Everything shown is a synthetic slide of the demo, so the picture shows no patient's tissue.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import ConnectionPatch

from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.stain import Drawn, render_views, turned_planes
from wsi_lmc.stainstore import load_or_estimate
from wsi_lmc.tilestore import TileStore
from wsi_lmc.training import TrainConfig

NORTH, SOUTH = "#0072B2", "#D55E00"
FACTORS = ((0.5, 0.6), (0.6, 1.8), (1.9, 0.7), (1.8, 1.7))  # on hematoxylin and on eosin
STEPS = (
    ("1  wsi-lmc tile", "tissue, calibrated tiles,\none zarr store a slide"),
    ("2  wsi-lmc train", "every variant of a tile shall\nhave one embedding;\none site's unlabelled tiles only"),
    ("3  wsi-lmc embed", "the frozen encoder, every tile\nof every site, stores or slides"),
    ("4  wsi-lmc export", "features a MIL model reads"),
)


def main(demo: Path, picture: Path) -> None:
    """Four panels, one a stage, from a demo's run folder."""
    figure = Figure(figsize=(13.5, 4.6), layout="none")
    left = (0.012, 0.262, 0.530, 0.800)
    for x, (command, text) in zip(left, STEPS, strict=True):
        figure.text(x, 0.945, command, fontsize=13, family="monospace", weight="bold", va="center")
        figure.text(x, 0.885, text, fontsize=10, color="0.3", va="top", linespacing=1.35)
    slide = figure.add_axes((left[0], 0.04, 0.185, 0.68))
    _show_slide(slide, demo)
    variants = [figure.add_axes((left[1] + 0.078 * (i % 2), 0.39 - 0.295 * (i // 2), 0.075, 0.27)) for i in range(4)]
    _show_variants(variants, demo)
    floor = figure.add_axes((left[2], 0.43, 0.19, 0.27))
    lmc = figure.add_axes((left[2], 0.06, 0.19, 0.27))
    _show_features(floor, demo / "untrained", "untrained: the sites lie apart")
    _show_features(lmc, demo, "LMC: they overlap")
    _show_files(figure, left[3])
    for start, end in ((0.205, 0.252), (0.432, 0.520), (0.728, 0.790)):
        figure.add_artist(_arrow(start, end))
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def _show_slide(axes: Axes, demo: Path) -> None:
    axes.imshow(imread(demo / "overviews" / "north-01.jpg"))
    axes.axis("off")


def _show_variants(panels: list[Axes], demo: Path) -> None:
    store = TileStore.open(demo / "tiles" / "north-01.zarr")
    stains = load_or_estimate(store, TrainConfig().separation, torch.device("cpu"))
    row = int(np.argmax(store.tissue_fraction[: len(store) // 2] + np.arange(len(store) // 2) * 1e-3))
    tile = store.read(np.asarray([row]))
    vectors = torch.from_numpy(stains.vectors[[row]])
    for axes, (h, e) in zip(panels, FACTORS, strict=True):
        drawn = Drawn(torch.tensor([h, e]).expand(2, 1, 2), None, None, None, None, None, None, None)
        view = render_views(turned_planes(torch.from_numpy(tile), drawn), vectors, drawn, "robust").a[0]
        axes.imshow(view.permute(1, 2, 0).numpy()[:160, :160])
        axes.set_title(f"H × {h}, E × {e}", fontsize=8.5, pad=3)
        axes.axis("off")


def _show_features(axes: Axes, run: Path, title: str) -> None:
    stores = [FeatureStore.open(path) for path in sorted((run / "features").glob("*.zarr"))]
    features = np.concatenate([store.features for store in stores])
    site = np.concatenate([[store.slide_id.split("-")[0]] * len(store) for store in stores])
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    plane = left[:, :2] * values[:2]
    for name, colour in (("north", NORTH), ("south", SOUTH)):
        axes.scatter(*plane[site == name].T, s=5, color=colour, alpha=0.6, linewidths=0, label=f"site {name}")
    axes.set_title(title, fontsize=9.5, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    if title.startswith("LMC"):
        axes.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, frameon=False, markerscale=2.5
        )


def _show_files(figure: Figure, left: float) -> None:
    lines = (
        "tiles/<slide>.zarr",
        "features/<slide>.zarr",
        "overviews/  contours/",
        "slides.csv  run.yaml",
        "checkpoint/encoder",
    )
    for row, line in enumerate(lines):
        figure.text(left, 0.66 - 0.075 * row, line, fontsize=10.5, family="monospace", color="0.15")
    figure.text(left, 0.255, "as TRIDENT and CLAM read them;", fontsize=10.5, color="0.15")
    figure.text(left, 0.19, "the encoder as timm loads it", fontsize=10.5, color="0.15")
    figure.text(left, 0.06, "shown: the demo's synthetic slides", fontsize=9, color="0.45")


def _arrow(start: float, end: float) -> ConnectionPatch:
    return ConnectionPatch(
        (start, 0.38), (end, 0.38), "figure fraction", arrowstyle="-|>", mutation_scale=18, color="0.45", linewidth=1.6
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("pipeline.png"))
