"""Stain vectors against other libraries and on real tissue, with the tolerance that each one's own way explains."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.tissue import degrees, mix, separate_by_numpy, unit
from wsi_lmc.patches import read_image
from wsi_lmc.stain import RUIFROK, SeparationConfig, separate, separate_density


def _as_torchstain(tile: np.ndarray, alpha: float) -> np.ndarray:
    """This package's vectors in torchstain's settings: 240 for white, one added to each value, centred."""
    density = -torch.log((torch.from_numpy(tile).reshape(1, -1, 3).float() + 1.0) / 240.0)
    found = separate_density(density, SeparationConfig(beta=0.15, alpha=alpha, centred=True))
    return found.vectors[0].double().numpy()


def _angles_to_torchstain(tiles: list[np.ndarray], oracle: Callable[[str], ModuleType]) -> list[float]:
    found = []
    for tile in tiles:
        theirs = oracle("torchstain.torch.normalizers.macenko").TorchMacenkoNormalizer()
        theirs.fit(torch.from_numpy(tile).permute(2, 0, 1))
        found.append(degrees(_as_torchstain(tile, 1.0), theirs.HERef.T.double().numpy()))
    return found


def test_vectors_are_torchstains(oracle: Callable[[str], ModuleType]) -> None:
    """To 0.05 degrees: its percentiles take the nearest rank, and its covariance is float32."""
    pairs = (RUIFROK, ((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)))
    tiles = [mix(pair, seed, (96, 128)) for pair in pairs for seed in range(3)]
    assert max(_angles_to_torchstain(tiles, oracle)) < 0.05


@pytest.mark.real
def test_vectors_of_real_tissue_are_torchstains(test_data: Path, oracle: Callable[[str], ModuleType]) -> None:
    pictures = sorted((test_data / "stain_schemes").glob("*.jpg"))
    pictures += [test_data / "golden" / "torchstain" / f"{name}.png" for name in ("source", "target")]
    assert max(_angles_to_torchstain([read_image(path)[:512, :512] for path in pictures], oracle)) < 0.05


@pytest.mark.real
def test_real_tiles_have_plausible_stains(test_data: Path) -> None:
    """On ten staining protocols of one tissue every estimate is numpy's, and H is bluer than E."""
    pictures = sorted((test_data / "stain_schemes").glob("*.jpg"))
    assert len(pictures) >= 5
    for path in pictures:
        tile = np.ascontiguousarray(read_image(path)[:512, :512])
        found = separate(torch.from_numpy(tile[None]), SeparationConfig(stride=1))
        np.testing.assert_allclose(found.vectors[0].numpy(), separate_by_numpy(tile), atol=1e-4)
        assert float(found.vectors[0, 0, 0]) >= float(found.vectors[0, 1, 0])
        assert bool(found.trusted[0])


@pytest.mark.real
@pytest.mark.parametrize(("beta", "largest"), [(0.15, 4.0), (0.05, 1.5)])
def test_agrees_with_histomicstks_golden_matrix(beta: float, largest: float, test_data: Path) -> None:
    """To 4 degrees, and to 1.5 with a lower threshold.

    HistomicsTK leaves out pixels by their magnitude, not by each channel, so faint ones count more there.
    """
    folder = test_data / "golden" / "histomicstk"
    document = json.loads((folder / "expected_values.json").read_text())
    columns = np.asarray(document["rgb_separate_stains_macenko_pca(im,255)"]).T
    golden = unit(sorted(columns[:2].tolist(), key=lambda vector: -vector[0]))
    found = separate(torch.from_numpy(read_image(folder / "Easy1.png")[None]), SeparationConfig(beta=beta, stride=1))
    assert bool(found.trusted[0])
    assert degrees(found.vectors[0].double().numpy(), golden) < largest
