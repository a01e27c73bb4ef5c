"""Synthetic slides on disk with their ground truth, and whole cohorts of two sites."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from wsi_lmc.cohort import SlideEntry, write_manifest
from wsi_lmc.errors import StoreError
from wsi_lmc.synthetic.drawing import CLASSES, NO_CLASS, SlideSpec, draw, draw_pen
from wsi_lmc.synthetic.sites import SITES, Site, expose, stain_slide
from wsi_lmc.synthetic.writing import write_svs, write_tiff

TRUTH_REDUCTION = 8  # level-0 pixels to one pixel of the truth's mask and class map
_PURE = 0.8  # least share of one class in a tile's tissue for the tile to be of that class


@dataclass(frozen=True)
class SlideTruth:
    """What is known of a synthetic slide; ``mask`` and ``classes`` are reduced ``TRUTH_REDUCTION`` times."""

    slide_id: str
    site: str
    mpp: float
    strength: tuple[float, float]
    stain_matrix: Float64[np.ndarray, "2 3"]
    mask: Bool[np.ndarray, "y x"]
    classes: UInt8[np.ndarray, "y x"]


def write_slide(path: Path, site: Site, spec: SlideSpec) -> SlideTruth:
    """Draw and write one slide, TIFF or SVS by its suffix; ``../truth/<stem>.*`` is written beside its folder."""
    rng = np.random.default_rng([spec.seed, 1])
    drawing = draw(spec)
    staining = stain_slide(site, rng)
    pixels = expose(drawing.concentrations, site, staining, rng)
    mask = drawing.tissue
    if spec.pen:
        mask = mask & ~draw_pen(pixels, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = write_svs if path.suffix == ".svs" else write_tiff
    write(path, pixels, spec.mpp, site.jpeg_quality)
    step = TRUTH_REDUCTION
    coarse = (mask[step // 2 :: step, step // 2 :: step], drawing.classes[step // 2 :: step, step // 2 :: step])
    truth = SlideTruth(path.stem, site.name, spec.mpp, staining.strength, staining.stains, *coarse)
    _write_truth(path.parent.parent / "truth", truth, spec)
    return truth


def load_truth(folder: Path, slide_id: str) -> SlideTruth:
    """Ground truth of one slide from a cohort's ``truth`` folder.

    Raises:
        StoreError: there is none.
    """
    try:
        about: dict[str, Any] = json.loads((folder / f"{slide_id}.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"no truth of {slide_id} in {folder}", "a synthetic slide's", "Check the folder.") from error
    mask = cv2.imread(str(folder / f"{slide_id}.mask.png"), cv2.IMREAD_GRAYSCALE)
    classes = cv2.imread(str(folder / f"{slide_id}.classes.png"), cv2.IMREAD_GRAYSCALE)
    if mask is None or classes is None:
        raise StoreError(f"truth of {slide_id} lacks a picture", "mask.png and classes.png", "Write the cohort again.")
    h, e = about["strength"]
    matrix = np.asarray(about["stain_matrix"], np.float64)
    return SlideTruth(
        slide_id, about["site"], about["mpp"], (h, e), matrix, np.asarray(mask) > 0, np.asarray(classes, np.uint8)
    )


def tile_classes(
    truth: SlideTruth, origins: Int32[np.ndarray, "n 2"], footprint: tuple[float, float]
) -> Int64[np.ndarray, " n"]:
    """Class of each tile (corner and size in level-0 pixels): that of 80 % of its tissue, else -1."""
    labels = np.full(len(origins), -1, np.int64)
    for row, (x, y) in enumerate(origins / TRUTH_REDUCTION):
        right, bottom = x + footprint[0] / TRUTH_REDUCTION, y + footprint[1] / TRUTH_REDUCTION
        part = truth.classes[int(y) : int(np.ceil(bottom)), int(x) : int(np.ceil(right))]
        counts = [int((part == number).sum()) for number in range(len(CLASSES))]
        stained = int((part != NO_CLASS).sum())
        best = int(np.argmax(counts))
        if stained and counts[best] >= _PURE * stained and stained >= part.size // 2:
            labels[row] = best
    return labels


def write_cohort(folder: Path, slides: Mapping[str, int], seed: int, size: tuple[int, int] = (2048, 2560)) -> Path:
    """Write slides of each site and a ``manifest.csv``, whose path is returned.

    Args:
        folder: new folder; slides lie in ``slides/``, ground truth in ``truth/``.
        slides: how many of each site, by name. TIFF and SVS take turns; some have a pen mark or a fold.
        seed: decides everything.
        size: width and height in level-0 pixels.
    """
    entries: list[SlideEntry] = []
    for index, site in enumerate(SITES):
        for number in range(slides.get(site.name, 0)):
            own = int(np.random.SeedSequence([seed, index, number]).generate_state(1)[0])
            suffix = ("tif", "svs")[number % 2]
            path = folder / "slides" / f"{site.name}-{number + 1:02d}.{suffix}"
            write_slide(path, site, SlideSpec(own, *size, pen=number % 3 == 1, fold=number % 3 == 2))
            entries.append(SlideEntry(path, path.stem, patient=f"patient-{path.stem}", site=site.name))
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv"


def _write_truth(folder: Path, truth: SlideTruth, spec: SlideSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "site": truth.site,
        "mpp": truth.mpp,
        "strength": truth.strength,
        "stain_matrix": truth.stain_matrix.tolist(),
        "classes": CLASSES,
        "reduction": TRUTH_REDUCTION,
        "spec": asdict(spec),
    }
    (folder / f"{truth.slide_id}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    cv2.imwrite(str(folder / f"{truth.slide_id}.mask.png"), truth.mask.astype(np.uint8) * 255)
    cv2.imwrite(str(folder / f"{truth.slide_id}.classes.png"), truth.classes)
