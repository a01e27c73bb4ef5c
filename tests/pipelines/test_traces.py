"""Tiles of several sites brought to one look: what is taken out is gone, and nothing else."""

import cv2
import numpy as np
import pytest

from pipelines.traces import Look
from wsi_lmc.evaluation import colour_features
from wsi_lmc.synthetic import SlideSpec, draw


@pytest.fixture(scope="module")
def sites() -> tuple[np.ndarray, np.ndarray]:
    """Tiles of a site, and of another that is blurred and pale."""
    stains = np.asarray([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    image = (255 * np.exp(-draw(SlideSpec(7, 1024, 1024, 0.25)).concentrations @ stains)).astype(np.uint8)
    image = image[256:768, 256:768]
    tiles = np.stack([image[y : y + 128, x : x + 128] for y in range(0, 512, 128) for x in range(0, 512, 128)])
    soft = np.stack([cv2.GaussianBlur(tile, (0, 0), 0.8) for tile in tiles])
    return tiles, (60 + soft * 0.7).astype(np.uint8)


def _spectrum(tiles: np.ndarray) -> np.ndarray:
    """Fourier amplitude of grey over bands of frequency: another transform than the one that is tested."""
    grey = np.stack([cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY) for tile in tiles]).astype(float)
    window = np.outer(np.hanning(128), np.hanning(128))
    power = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    bands = [(low <= radius) & (radius < low + 0.1) for low in (0.05, 0.15, 0.25, 0.35)]
    return np.sqrt([power[:, band].mean() for band in bands])


def test_sharpness_becomes_the_same(sites: tuple[np.ndarray, np.ndarray]) -> None:
    change = Look.of(sites).changes()["same sharpness"]
    before = _spectrum(sites[0]) / _spectrum(sites[1])
    after = _spectrum(change(sites[0])) / _spectrum(change(sites[1]))
    assert before.max() > 5
    np.testing.assert_allclose(after, 1.0, atol=0.35)


def test_mean_and_contrast_become_the_same(sites: tuple[np.ndarray, np.ndarray]) -> None:
    change = Look.of(sites).changes()["same mean and contrast"]
    before, after = (np.stack([colour_features(how(tiles)).mean(0) for tiles in sites]) for how in (np.array, change))
    assert np.abs(before[0] - before[1]).max() > 10
    assert np.abs(after[0] - after[1]).max() < 4, "clipping alone is left"


def test_grey_keeps_brightness_and_texture(sites: tuple[np.ndarray, np.ndarray]) -> None:
    change = Look.of(sites).changes()["grey"]
    found = change(sites[0])
    assert (found == found[..., :1]).all()
    expected = np.stack([cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY) for tile in sites[0]])
    assert np.abs(found[..., 0].astype(int) - expected).max() <= 1


def test_the_last_change_takes_out_all(sites: tuple[np.ndarray, np.ndarray]) -> None:
    change = Look.of(sites).changes()["grey, same contrast and sharpness"]
    one, other = (change(tiles) for tiles in sites)
    assert (one == one[..., :1]).all()
    assert np.abs(colour_features(one).mean(0) - colour_features(other).mean(0)).max() < 8
    np.testing.assert_allclose(_spectrum(one) / _spectrum(other), 1.0, atol=0.35)


def test_tiles_as_they_are_stay(sites: tuple[np.ndarray, np.ndarray]) -> None:
    assert Look.of(sites).changes()["as they are"](sites[0]) is sites[0]
