"""Stain maths against known mixes, an independent numpy reference, and tiles that break lesser code."""

import json
import math
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from wsi_lmc.errors import UsageError
from wsi_lmc.patches import read_image
from wsi_lmc.stain import (
    RUIFROK,
    Drawn,
    SeparationConfig,
    ViewConfig,
    concentrations,
    draw_views,
    optical_density,
    pool,
    render_views,
    separate,
    transmitted,
    two_views,
)
from wsi_lmc.stain.scanner import blur, jpeg
from wsi_lmc.stain.separation import pseudo_inverse
from wsi_lmc.stain.views import scale_stains, turn

CONFIG = SeparationConfig()
PAIRS = [
    ((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)),
    ((0.560, 0.760, 0.330), (0.180, 0.890, 0.419)),
    RUIFROK,
]


def _unit(pair: object) -> np.ndarray:
    vectors = np.asarray(pair, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _mix(pair: object, seed: int, shape: tuple[int, int] = (96, 128), even: bool = False) -> np.ndarray:
    """A tile with known stains: some pixels of H, some of E, many of both; ``even``: all of about one density."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.4, 0.4, shape)
    total = rng.uniform(0.95, 1.05, shape) if even else rng.gamma(6.0, 0.2, shape)
    density = np.stack([share * total, (1 - share) * total], -1) @ _unit(pair)
    density += rng.normal(0, 0.01, density.shape)
    return np.clip(np.rint(255 * np.exp(-density)), 0, 255).astype(np.uint8)


def _planes(pixels: torch.Tensor) -> torch.Tensor:
    """Density of pixels (b, n, 3) as channels first (b, 3, n, 1), as views take it."""
    return pixels.transpose(1, 2).unsqueeze(-1)


def _pixels(planes: torch.Tensor) -> torch.Tensor:
    return planes.squeeze(-1).transpose(1, 2)


def _degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1))).max())


def _separate_by_numpy(tile: np.ndarray) -> np.ndarray:
    """Macenko's method, uncentred, one tile, by SVD: written from the paper, not from the library."""
    density = np.maximum(-np.log(np.maximum(tile.reshape(-1, 3).astype(np.float64), 1) / 255), 0)
    density = density[(density >= 0.15).all(1)]
    basis = np.linalg.svd(density, full_matrices=False)[2][:2]
    basis *= np.where(basis @ density.mean(0) < 0, -1, 1)[:, None]
    angle = np.arctan2(density @ basis[1], density @ basis[0])
    found = [np.array([np.cos(a), np.sin(a)]) @ basis for a in np.percentile(angle, [1, 99])]
    return np.stack(sorted(found, key=lambda vector: -float(np.asarray(vector)[0])))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("even", [False, True])
def test_known_stains_are_found(pair: object, even: bool) -> None:
    """Within 5 degrees; 8 on even density, where the tissue threshold cuts off eosin that is clear in red."""
    found = separate(torch.from_numpy(_mix(pair, 1, even=even)[None]), CONFIG)
    assert _degrees(found.vectors[0].numpy().astype(np.float64), _unit(pair)) < (8 if even else 5)
    assert bool(found.trusted[0])


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_plain_reference(seed: int) -> None:
    tile = _mix(PAIRS[seed % 3], seed, (61, 83))
    found = separate(torch.from_numpy(tile[None]), CONFIG).vectors[0].numpy()
    np.testing.assert_allclose(found, _separate_by_numpy(tile), atol=2e-5)


def _broken() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (64, 80, 3)
    one_stain = np.exp(-rng.gamma(4, 0.2, (64, 80, 1)) * _unit(RUIFROK)[1]) * 255
    return {
        "white": np.full(shape, 255, np.uint8),
        "glass": np.full(shape, 243, np.uint8),
        "black": np.zeros(shape, np.uint8),
        "one colour": np.full(shape, (180, 90, 150), np.uint8),
        "pen": np.clip(rng.normal((25, 110, 70), 2, shape), 0, 255).astype(np.uint8),
        "one stain": np.rint(one_stain).astype(np.uint8),
        "a speck": np.pad(_mix(RUIFROK, 2, (6, 8)), ((29, 29), (36, 36), (0, 0)), constant_values=250),
    }


def test_hopeless_tiles_are_not_trusted_and_leave_their_neighbours_alone() -> None:
    good = _mix(PAIRS[0], 3, (64, 80))
    alone = separate(torch.from_numpy(good[None]), CONFIG)
    batch = torch.from_numpy(np.stack([good, *_broken().values(), good]))
    found = separate(batch, CONFIG)
    assert found.trusted.tolist() == [True, *[False] * len(_broken()), True], list(_broken())
    assert bool(torch.isfinite(found.vectors).all())
    for row in (0, -1):
        torch.testing.assert_close(found.vectors[row], alone.vectors[0], rtol=0, atol=1e-6)


def test_a_pool_is_one_tile_of_all() -> None:
    tiles = torch.from_numpy(np.stack([_mix(PAIRS[0], seed, (32, 40)) for seed in range(3)]))
    together = separate(tiles.reshape(1, 96, 40, 3), CONFIG)
    torch.testing.assert_close(pool(tiles, CONFIG).vectors, together.vectors)


def test_the_pseudo_inverse_is_numpys() -> None:
    vectors = torch.tensor(np.stack([_unit(pair) for pair in PAIRS]), dtype=torch.float32)
    np.testing.assert_allclose(pseudo_inverse(vectors).numpy(), np.linalg.pinv(vectors.numpy()), atol=1e-5)


def test_density_is_the_natural_logarithm() -> None:
    tile = torch.tensor([[[[255, 128, 0]]]], dtype=torch.uint8)
    density = optical_density(tile)
    torch.testing.assert_close(density[0, 0], torch.tensor([0.0, -math.log(128 / 255), math.log(255)]))
    torch.testing.assert_close(transmitted(density)[0, 0] * 255, torch.tensor([255.0, 128.0, 1.0]))


def test_robust_scaling_by_one_changes_nothing_and_papers_drops_the_residual() -> None:
    tile = torch.from_numpy(_mix(PAIRS[1], 5)[None])
    density = _planes(optical_density(tile))
    stains = torch.tensor(_unit(PAIRS[0])[None], dtype=torch.float32)
    one = torch.ones(1, 2)
    assert torch.equal(scale_stains(density, stains, one, "robust"), density)
    residual = (scale_stains(density, stains, one, "paper") - density).abs().mean()
    assert 0.001 < float(residual) < 0.1


@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_concentrations_scale_exactly(mode: str) -> None:
    stains = torch.tensor(_unit(PAIRS[0])[None], dtype=torch.float32)
    amounts = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(1))
    factors = torch.tensor([[0.7, 1.6]])
    scaled = scale_stains(_planes(amounts @ stains), stains, factors, "paper" if mode == "paper" else "robust")
    torch.testing.assert_close(
        concentrations(_pixels(scaled), stains), amounts * factors.unsqueeze(1), rtol=1e-4, atol=1e-5
    )


def test_robust_does_not_scale_negative_concentrations() -> None:
    stains = torch.tensor(_unit(PAIRS[0])[None], dtype=torch.float32)
    amounts = torch.tensor([[[0.5, -0.2]]])
    scaled = scale_stains(_planes(amounts @ stains), stains, torch.tensor([[1.0, 2.0]]), "robust")
    torch.testing.assert_close(concentrations(_pixels(scaled), stains), amounts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_views_are_two_reproducible_and_in_range(mode: str) -> None:
    tiles = torch.from_numpy(np.stack([_mix(PAIRS[0], seed, (64, 64)) for seed in range(5)]))
    stains = separate(tiles, CONFIG).vectors
    config = ViewConfig("paper" if mode == "paper" else "robust")
    first, again, other = (two_views(tiles, stains, config, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert first.a.shape == (5, 3, 64, 64)
    assert torch.equal(first.a, again.a)
    assert torch.equal(first.b, again.b)
    assert not torch.equal(first.a, other.a)
    assert not torch.equal(first.a, first.b)
    for view in (first.a, first.b):
        assert 0 <= float(view.min()) <= float(view.max()) <= 1
    assert 0 <= float(first.clipped_share) < 0.5


def test_both_views_are_turned_alike() -> None:
    """With no change of stain the two views of the robust mode are the same turned tile."""
    tiles = torch.from_numpy(np.stack([_mix(PAIRS[0], seed, (48, 48)) for seed in range(16)]))
    stains = separate(tiles, CONFIG).vectors
    views = two_views(tiles, stains, ViewConfig("robust", 1.0, 1.0), torch.Generator().manual_seed(0))
    assert torch.equal(views.a, views.b)
    plain = tiles.permute(0, 3, 1, 2).float() / 255
    moved = [not torch.allclose(views.a[row], plain[row], atol=0.01) for row in range(16)]
    assert 8 <= sum(moved) < 16
    ordered = views.a.flatten(2).sort(-1).values
    torch.testing.assert_close(ordered, plain.flatten(2).sort(-1).values.clamp(min=1 / 255), atol=1e-5, rtol=0)


def test_eight_turns_are_eight_different_pictures() -> None:
    image = torch.arange(3 * 9, dtype=torch.uint8).view(1, 3, 3, 3)
    turned = turn(image.expand(8, 3, 3, 3), torch.arange(8))
    assert len({tuple(picture.flatten().tolist()) for picture in turned}) == 8
    oblong = torch.arange(36, dtype=torch.uint8).view(1, 3, 4, 3).expand(8, 3, 4, 3)
    assert len({tuple(picture.flatten().tolist()) for picture in turn(oblong, torch.arange(8))}) == 4


def _options(**changes: object) -> ViewConfig:
    return replace(ViewConfig(), **changes)


def _drawn(config: ViewConfig, count: int = 4000) -> Drawn:
    return draw_views(count, config, torch.Generator().manual_seed(0))


def test_factors_follow_their_law() -> None:
    for law, middle in (("uniform", 1.25), ("log-uniform", 1.0)):
        factors = _drawn(_options(scale_law=law)).factors
        assert 0.5 <= float(factors.min()) < 0.51
        assert 1.98 < float(factors.max()) <= 2.0
        assert float(factors.median()) == pytest.approx(middle, abs=0.03)


def test_what_is_off_is_not_drawn_and_draws_nothing_else_anew() -> None:
    plain, all_on = _drawn(ViewConfig()), _drawn(_options(gamma=0.2, white_point=0.1, blur=1.0, jpeg=30))
    assert [values is None for values in plain] == [False, False, True, True, True, True]
    assert all(values is not None for values in all_on)
    assert torch.equal(plain.factors, all_on.factors)
    assert _drawn(_options(mode="paper")).turns is None
    same, apart = (_drawn(_options(geometry=name)).turns for name in ("same", "independent"))
    assert same is not None
    assert apart is not None
    assert torch.equal(same[0], same[1])
    assert not torch.equal(apart[0], apart[1])


def test_gamma_and_white_point_act_on_the_density() -> None:
    tiles = torch.from_numpy(_mix(PAIRS[0], 1, (32, 48))[None])
    stains = torch.tensor(_unit(PAIRS[0])[None], dtype=torch.float32)
    one = torch.ones(2, 1, 2)
    drawn = Drawn(one, None, torch.full((2, 1), 1.5), torch.tensor([0.0, 0.02, 0.05]).expand(2, 1, 3), None, None)
    view = render_views(tiles, stains, drawn, "robust").a
    expected = (tiles.permute(0, 3, 1, 2).float().clamp(min=1) / 255) ** 1.5
    expected = expected * torch.tensor([0.0, 0.02, 0.05]).neg().exp().view(1, 3, 1, 1)
    torch.testing.assert_close(view, expected.clamp(min=1 / 255), atol=1e-5, rtol=0)


def test_blur_is_scipys() -> None:
    image = torch.rand(3, 2, 30, 41, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.0, 0.7, 1.2])
    blurred = blur(image, sigma)
    torch.testing.assert_close(blurred[0], image[0])
    for row in (1, 2):
        for channel in range(2):
            expected = gaussian_filter(image[row, channel].numpy(), float(sigma[row]), mode="nearest", radius=4)
            np.testing.assert_allclose(blurred[row, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("quality", "shape"), [(30, (64, 96)), (70, (61, 90)), (95, (64, 64))])
def test_jpeg_is_nearly_libjpegs(quality: int, shape: tuple[int, int]) -> None:
    """Chroma is brought back by another filter, so not to the last bit; what is lost is lost in the same places."""
    tile = gaussian_filter(_mix(PAIRS[0], 3, shape).astype(np.float32), (1.0, 1.0, 0.0))
    tile = np.clip(np.rint(tile), 0, 255).astype(np.uint8)
    images = torch.from_numpy(tile).permute(2, 0, 1).unsqueeze(0).float() / 255
    ours = jpeg(images, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    theirs = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(tile, level=quality, subsampling="420"))
    lost = np.abs(np.asarray(theirs, np.float32) - tile).mean()
    assert np.abs(ours - np.asarray(theirs, np.float32)).mean() < 0.35 * lost + 0.4


def test_every_image_has_its_own_quality_and_blur() -> None:
    tile = torch.from_numpy(_mix(PAIRS[0], 3, (32, 48)))
    image = blur(tile.permute(2, 0, 1).unsqueeze(0).float() / 255, torch.tensor([1.0])).expand(2, -1, -1, -1)
    quality = torch.tensor([20.0, 90.0])
    torch.testing.assert_close(jpeg(image, quality)[1:], jpeg(image[1:], quality[1:]))
    errors = (jpeg(image, quality) - image).abs().mean(dim=(1, 2, 3))
    assert float(errors[0]) > 1.5 * float(errors[1])


@pytest.mark.parametrize(
    "changes", [{"scale_low": 0.0}, {"scale_low": 3.0}, {"gamma": -1.0}, {"jpeg": 96}, {"blur": -0.1}]
)
def test_impossible_views_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        _options(**changes)


def test_a_batch_equals_a_loop() -> None:
    tiles = torch.from_numpy(np.stack([_mix(pair, 7, (40, 56)) for pair in PAIRS]))
    together = separate(tiles, CONFIG)
    for row in range(3):
        torch.testing.assert_close(separate(tiles[row : row + 1], CONFIG).vectors[0], together.vectors[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_gpu_agree() -> None:
    tiles = torch.from_numpy(np.stack([_mix(pair, 7, (64, 64)) for pair in PAIRS] + [*_broken().values()][:0]))
    torch.testing.assert_close(
        separate(tiles.cuda(), CONFIG).vectors.cpu(), separate(tiles, CONFIG).vectors, atol=1e-4, rtol=0
    )


@pytest.mark.real
def test_real_tiles_have_plausible_stains(test_data: Path) -> None:
    """On ten staining protocols of one tissue every trusted estimate is H-like and E-like, in that order."""
    import cv2

    pictures = sorted(
        path for path in (test_data / "stain_schemes").rglob("*") if path.suffix in {".png", ".jpg", ".tif"}
    )
    assert len(pictures) >= 5
    for path in pictures:
        read = cv2.imread(str(path))
        assert read is not None
        tile = np.ascontiguousarray(read[:512, :512, ::-1])
        found = separate(torch.from_numpy(tile[None]), CONFIG)
        np.testing.assert_allclose(found.vectors[0].numpy(), _separate_by_numpy(tile), atol=1e-3)
        assert float(found.vectors[0, 0, 0]) >= float(found.vectors[0, 1, 0])


@pytest.mark.real
@pytest.mark.parametrize(("beta", "degrees"), [(0.15, 4.0), (0.05, 1.5)])
def test_agrees_with_histomicstks_golden_matrix(beta: float, degrees: float, test_data: Path) -> None:
    """HistomicsTK leaves out pixels by their magnitude, not by each channel, so faint ones count more there."""
    folder = test_data / "golden" / "histomicstk"
    document = json.loads((folder / "expected_values.json").read_text())
    columns = np.asarray(document["rgb_separate_stains_macenko_pca(im,255)"]).T
    golden = _unit(sorted(columns[:2].tolist(), key=lambda vector: -vector[0]))
    found = separate(torch.from_numpy(read_image(folder / "Easy1.png")[None]), SeparationConfig(beta=beta))
    assert bool(found.trusted[0])
    assert _degrees(found.vectors[0].double().numpy(), golden) < degrees
