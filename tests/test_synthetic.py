"""Synthetic slides are real files with true ground truth, and their classes differ in morphology only."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
import torch
from jaxtyping import Float64, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_lmc.cohort import read_manifest
from wsi_lmc.errors import StoreError
from wsi_lmc.evaluation import colour_features
from wsi_lmc.evaluation.scores import auroc
from wsi_lmc.patches import read_image
from wsi_lmc.slide import open_slide
from wsi_lmc.stain import SeparationConfig, separate
from wsi_lmc.stain.density import optical_density
from wsi_lmc.stain.separation import concentrations, pool
from wsi_lmc.synthetic import (
    NO_CLASS,
    NORTH,
    SITES,
    SOUTH,
    Site,
    SlideSpec,
    Staining,
    draw,
    expose,
    load_truth,
    stain_slide,
    tile_classes,
    write_slide,
)
from wsi_lmc.synthetic.sites import stain_matrix
from wsi_lmc.tissue import TissueConfig, find_tissue

SMALL = SlideSpec(seed=5, width=900, height=1200)


@pytest.mark.parametrize(("name", "vendor"), [("north-01.tif", "generic-tiff"), ("south-02.svs", "aperio")])
def test_both_libraries_open_them(small_cohort: Path, name: str, vendor: str) -> None:
    path = small_cohort / "slides" / name
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == vendor
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert slide.level_dimensions == ((1024, 1280), (512, 640), (256, 320))
    other = tiffslide.TiffSlide(path)
    assert float(other.properties["tiffslide.mpp-x"]) == pytest.approx(0.5)
    assert other.level_dimensions == ((1024, 1280), (512, 640), (256, 320))
    other.close()
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.is_tiled
        assert file.pages.first.compression == tifffile.COMPRESSION.JPEG


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_slide(tmp_path / name / "slides" / "x.svs", NORTH, SlideSpec(seed, 600, 800))
    content = {name: (tmp_path / name / "slides" / "x.svs").read_bytes() for name in "abc"}
    assert content["a"] == content["b"]
    assert content["a"] != content["c"]


def test_pixels_follow_the_law_of_beer_and_lambert() -> None:
    """Without blur the logarithm of the pixels over the white point is the mix of the stains, but for 8 bits."""
    drawing = draw(SMALL)
    site = replace(NORTH, blur_px=0.01, gamma=1.0, unevenness=0.0, other=0.0)
    staining = Staining(stain_matrix(site), (0.9, 0.8))
    pixels = expose(drawing.concentrations, site, staining, np.random.default_rng(0)).astype(np.float64)
    density = -np.log(np.maximum(pixels, 1) / np.asarray(site.white))
    found = density @ np.linalg.pinv(stain_matrix(site))
    bright = pixels.min(axis=2) > 60
    assert bright.mean() > 0.5
    error = (found - drawing.concentrations * (0.9, 0.8))[bright]
    assert np.abs(np.median(error, axis=0)).max() < 0.01
    assert np.abs(error).mean() < 0.06


def test_truth_is_where_the_tissue_is(small_cohort: Path) -> None:
    for entry in read_manifest(small_cohort / "manifest.csv"):
        truth = load_truth(small_cohort / "truth", entry.slide_id)
        with open_slide(entry.path) as slide:
            found, _ = find_tissue(slide, TissueConfig())
        rows = (np.arange(truth.mask.shape[0]) * found.mask.shape[0] / truth.mask.shape[0]).astype(int)
        columns = (np.arange(truth.mask.shape[1]) * found.mask.shape[1] / truth.mask.shape[1]).astype(int)
        same = found.mask[np.ix_(rows, columns)]
        assert (same & truth.mask).sum() / (same | truth.mask).sum() > 0.9
        assert truth.site == entry.site
        assert {0, 1} <= set(truth.classes[truth.mask].tolist()) <= {0, 1, NO_CLASS}


def test_the_manifest_names_sites_and_patients(small_cohort: Path) -> None:
    entries = read_manifest(small_cohort / "manifest.csv")
    assert [entry.site for entry in entries] == ["north", "north", "south", "south"]
    assert len({entry.patient for entry in entries}) == 4
    assert {entry.path.suffix for entry in entries} == {".tif", ".svs"}


def test_a_tile_has_a_class_only_where_it_is_pure(small_cohort: Path) -> None:
    truth = load_truth(small_cohort / "truth", "north-01")
    places = np.array([[x, y] for y in range(0, 1024, 128) for x in range(0, 768, 128)], np.int32)
    labels = tile_classes(truth, places, (256.0, 256.0))
    assert set(labels.tolist()) <= {-1, 0, 1}
    for (x, y), label in zip(places // 8, labels, strict=True):
        part = truth.classes[y : y + 32, x : x + 32]
        if label >= 0:
            assert (part == label).sum() >= 0.8 * (part != NO_CLASS).sum()
    with pytest.raises(StoreError):
        load_truth(small_cohort / "truth", "west-01")


def test_sites_differ_and_both_are_plausible() -> None:
    reference = np.array([[0.650, 0.704, 0.286], [0.07, 0.99, 0.11]])
    for site in SITES:
        vectors = stain_matrix(site)
        cosines = (vectors * reference).sum(1) / np.linalg.norm(reference, axis=1)
        assert np.degrees(np.arccos(cosines.clip(-1, 1))).max() < 25
        assert np.degrees(np.arccos(vectors[0] @ vectors[1])) > 20
    drawing = draw(SMALL)
    means = [
        expose(drawing.concentrations, site, Staining(stain_matrix(site), site.strength), np.random.default_rng(0))[
            drawing.tissue
        ].mean(axis=0)
        for site in (NORTH, SOUTH)
    ]
    assert np.abs(means[0] - means[1]).max() > 10


@pytest.mark.slow
def test_colour_does_not_tell_the_classes() -> None:
    """Mean and deviation of colour, trained on five slides and tested on the sixth, are little better than chance."""
    colours, labels, slides = [], [], []
    for seed in range(6):
        drawing = draw(SlideSpec(100 + seed))
        rng = np.random.default_rng(seed)
        pixels = expose(drawing.concentrations, NORTH, stain_slide(NORTH, rng), rng)
        for y in range(0, 2560 - 255, 256):
            for x in range(0, 2048 - 255, 256):
                kinds = drawing.classes[y : y + 256, x : x + 256]
                shares = [(kinds == number).mean() for number in (0, 1)]
                if max(shares) > 0.95:
                    colours.append(pixels[y : y + 256, x : x + 256])
                    labels.append(int(np.argmax(shares)))
                    slides.append(seed)
    features, truth, slide = colour_features(np.stack(colours)), np.array(labels), np.array(slides)
    scores = np.zeros(len(truth))
    for seed in range(6):
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(features[slide != seed], truth[slide != seed])
        scores[slide == seed] = model.predict_proba(features[slide == seed])[:, 1]
    assert len(truth) > 100
    assert auroc(truth, scores) < 0.7


@pytest.mark.slow
def test_a_site_varies_as_much_as_real_ones(test_data: Path) -> None:
    """Stain differs from tile to tile of a site about as much as in images of three real ones, in every respect."""
    real = [
        _variation(_real_tiles(sorted((test_data / folder).rglob("*.jpg"))))
        for folder in ("colon_crosssite/glas_uk", "breast_crosssite/ucsb_us", "tcga_multiorgan/monuseg")
    ]
    drawn = np.mean([_variation(_drawn_tiles(site)) for site in SITES], axis=0)
    assert (drawn > 0.7 * np.min(real, axis=0)).all(), (drawn, real)
    assert (drawn < 1.3 * np.max(real, axis=0)).all(), (drawn, real)


def _real_tiles(paths: Sequence[Path]) -> UInt8[np.ndarray, "n 256 256 3"]:
    images = [read_image(path) for path in paths[:: max(1, len(paths) // 60)]]
    return np.stack([image[100:356, x : x + 256] for image in images for x in (50, 306)])


def _drawn_tiles(site: Site) -> UInt8[np.ndarray, "n 256 256 3"]:
    tiles: list[np.ndarray] = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drawing = draw(SlideSpec(seed, 1024, 1024))
        pixels = expose(drawing.concentrations, site, stain_slide(site, rng), rng)
        places = [(x, y) for y in range(0, 769, 256) for x in range(0, 769, 256)]
        tiles += [
            pixels[y : y + 256, x : x + 256] for x, y in places if drawing.tissue[y : y + 256, x : x + 256].mean() > 0.9
        ]
    return np.stack(tiles)


def _variation(tiles: UInt8[np.ndarray, "n 256 256 3"]) -> Float64[np.ndarray, "5"]:
    """How far tiles' own H and E lie from the site's, in degrees; how much the amounts of the two vary; the rest.

    Amounts are 99th percentiles of a tile's pixels, of which the deviation over the mean counts; the rest is the share
    of density out of the plane of the site's two stains.
    """
    pixels = torch.from_numpy(tiles)
    site = pool(pixels[:, ::4, ::4], SeparationConfig()).vectors
    own = separate(pixels, SeparationConfig())
    cosines = (own.vectors[own.trusted] * site).sum(-1).clamp(-1, 1)
    density = optical_density(pixels[:, ::4, ::4])
    amounts = concentrations(density, site.expand(len(tiles), 2, 3))
    rest = density - amounts @ site[0]
    strong = torch.quantile(amounts, 0.99, dim=1)
    shares = rest.square().sum((1, 2)).sqrt() / density.square().sum((1, 2)).sqrt()
    angles = torch.rad2deg(cosines.acos()).median(0).values
    return np.concatenate([angles.numpy(), (strong.std(0) / strong.mean(0)).numpy(), [float(shares.median())]])
