"""Stain maths against known mixes and an independent numpy reference."""

import math
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb_from_hed

from tests.tissue import degrees, mix, separate_by_numpy, unit
from wsi_lmc.errors import UsageError
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
    turned_planes,
    two_views,
)
from wsi_lmc.stain.scanner import blur, jpeg
from wsi_lmc.stain.separation import eigen, oriented, pseudo_inverse
from wsi_lmc.stain.turns import crop, turn
from wsi_lmc.stain.views import jitter_hed, scale_stains

CONFIG = SeparationConfig(stride=1)
PAIRS = [
    ((0.650, 0.704, 0.286), (0.092, 0.954, 0.283)),
    ((0.560, 0.760, 0.330), (0.180, 0.890, 0.419)),
    RUIFROK,
]


def _scaled(pixels: torch.Tensor, stains: torch.Tensor, factors: torch.Tensor, mode: str) -> torch.Tensor:
    """Density of pixels (b, n, 3) with its stains scaled, though views take it channel by channel."""
    planes = [plane.unsqueeze(-1) for plane in pixels.unbind(2)]
    scaled = scale_stains(planes, stains, factors, "paper" if mode == "paper" else "robust")
    return torch.stack([plane.squeeze(-1) for plane in scaled], 2)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("even", [False, True])
def test_known_stains_are_found(pair: object, even: bool) -> None:
    """Within 5 degrees; 8 on even density, where the tissue threshold cuts off eosin that is clear in red."""
    found = separate(torch.from_numpy(mix(pair, 1, even=even)[None]), CONFIG)
    assert degrees(found.vectors[0].numpy().astype(np.float64), unit(pair)) < (8 if even else 5)
    assert bool(found.trusted[0])


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_plain_reference(seed: int) -> None:
    tile = mix(PAIRS[seed % 3], seed, (61, 83))
    found = separate(torch.from_numpy(tile[None]), CONFIG).vectors[0].numpy()
    np.testing.assert_allclose(found, separate_by_numpy(tile), atol=2e-5)


def test_a_pool_is_one_tile_of_all() -> None:
    tiles = torch.from_numpy(np.stack([mix(PAIRS[0], seed, (32, 40)) for seed in range(3)]))
    together = separate(tiles.reshape(1, 96, 40, 3), CONFIG)
    torch.testing.assert_close(pool(tiles, CONFIG).vectors, together.vectors)


def test_the_pseudo_inverse_is_numpys() -> None:
    vectors = torch.tensor(np.stack([unit(pair) for pair in PAIRS]), dtype=torch.float32)
    np.testing.assert_allclose(pseudo_inverse(vectors).numpy(), np.linalg.pinv(vectors.numpy()), atol=1e-5)


def test_parallel_vectors_have_a_finite_pseudo_inverse() -> None:
    for turned in (0.0, 1e-9, 1e-5, 1e-3):
        pair = torch.tensor([[[0.6, 0.8, 0.0], [0.6, 0.8, turned]]])
        assert bool(torch.isfinite(pseudo_inverse(pair)).all())


def test_eigenvectors_are_numpys_up_to_their_sign() -> None:
    rng = np.random.default_rng(0)
    roots = rng.random((500, 3, 3)) * 10.0 ** rng.uniform(-6, 0, (500, 1, 3))
    matrices = roots @ roots.swapaxes(1, 2)
    values, axes = eigen(torch.from_numpy(matrices))
    expected, vectors = (found[..., ::-1] for found in np.linalg.eigh(matrices))
    np.testing.assert_allclose(values, expected, atol=1e-13)
    cosines = np.abs(np.einsum("nck,nck->nk", axes, vectors))
    distinct = np.diff(expected) < -1e-6  # where two are equal any axis of their plane will do
    np.testing.assert_allclose(cosines[:, 0][distinct[:, 0]], 1, atol=1e-12)
    np.testing.assert_allclose(cosines[:, 2][distinct[:, 1]], 1, atol=1e-12)
    for odd in (torch.zeros(3, 3), torch.eye(3), torch.ones(3, 3)):
        values, axes = eigen(odd.double().unsqueeze(0))
        torch.testing.assert_close(axes * values.unsqueeze(1) @ axes.transpose(1, 2), odd.double().unsqueeze(0))


def test_either_sign_of_an_eigenvector_will_do() -> None:
    axes = torch.linalg.qr(torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    mean = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for signs in ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)):
        turned = oriented(axes[:, :, :2] * torch.tensor(signs, dtype=torch.float64), mean)
        torch.testing.assert_close(turned, oriented(axes[:, :, :2], mean), rtol=0, atol=0)
        assert bool((mean.unsqueeze(1) @ turned >= 0).all())


@pytest.mark.parametrize("stride", [2, 4])
def test_a_share_of_the_pixels_is_a_smaller_tile(stride: int) -> None:
    tile = torch.from_numpy(mix(PAIRS[0], 3)[None])
    less = separate(tile, SeparationConfig(stride=stride))
    assert torch.equal(less.vectors, separate(tile[:, ::stride, ::stride].contiguous(), CONFIG).vectors)
    assert degrees(less.vectors[0].double().numpy(), unit(PAIRS[0])) < 5


@pytest.mark.parametrize("changes", [{"stride": 0}, {"alpha": 50.0}, {"alpha": -1.0}, {"beta": math.nan}])
def test_impossible_separations_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(CONFIG, **changes)


def test_density_is_the_natural_logarithm() -> None:
    tile = torch.tensor([[[[255, 128, 0]]]], dtype=torch.uint8)
    density = optical_density(tile)
    torch.testing.assert_close(density[0, 0], torch.tensor([0.0, -math.log(128 / 255), math.log(255)]))
    torch.testing.assert_close(transmitted(density)[0, 0] * 255, torch.tensor([255.0, 128.0, 1.0]))


def test_robust_scaling_by_one_changes_nothing_and_papers_drops_the_residual() -> None:
    tile = torch.from_numpy(mix(PAIRS[1], 5)[None])
    density = optical_density(tile)
    stains = torch.tensor(unit(PAIRS[0])[None], dtype=torch.float32)
    one = torch.ones(1, 2)
    assert torch.equal(_scaled(density, stains, one, "robust"), density)
    residual = (_scaled(density, stains, one, "paper") - density).abs().mean()
    assert 0.001 < float(residual) < 0.1


@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_concentrations_scale_exactly(mode: str) -> None:
    stains = torch.tensor(unit(PAIRS[0])[None], dtype=torch.float32)
    amounts = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(1))
    factors = torch.tensor([[0.7, 1.6]])
    scaled = _scaled(amounts @ stains, stains, factors, mode)
    torch.testing.assert_close(concentrations(scaled, stains), amounts * factors.unsqueeze(1), rtol=1e-4, atol=1e-5)


def test_robust_does_not_scale_negative_concentrations() -> None:
    stains = torch.tensor(unit(PAIRS[0])[None], dtype=torch.float32)
    amounts = torch.tensor([[[0.5, -0.2]]])
    scaled = _scaled(amounts @ stains, stains, torch.tensor([[1.0, 2.0]]), "robust")
    torch.testing.assert_close(concentrations(scaled, stains), amounts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_views_are_two_reproducible_and_in_range(mode: str) -> None:
    tiles = torch.from_numpy(np.stack([mix(PAIRS[0], seed, (64, 64)) for seed in range(5)]))
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
    tiles = torch.from_numpy(np.stack([mix(PAIRS[0], seed, (48, 48)) for seed in range(16)]))
    stains = separate(tiles, CONFIG).vectors
    views = two_views(tiles, stains, ViewConfig("robust", 1.0, 1.0), torch.Generator().manual_seed(0))
    assert torch.equal(views.a, views.b)
    plain = tiles.permute(0, 3, 1, 2).float() / 255
    moved = [not torch.allclose(views.a[row], plain[row], atol=0.01) for row in range(16)]
    assert 8 <= sum(moved) < 16
    ordered = views.a.flatten(2).sort(-1).values
    torch.testing.assert_close(ordered, plain.flatten(2).sort(-1).values.clamp(min=1 / 255), atol=1e-5, rtol=0)


def test_eight_turns_are_eight_different_pictures() -> None:
    image = torch.arange(27, dtype=torch.uint8).view(1, 3, 3, 3)
    turned = turn(image.expand(8, 3, 3, 3), torch.arange(8))
    assert len({tuple(picture.flatten().tolist()) for picture in turned}) == 8
    oblong = torch.arange(36, dtype=torch.uint8).view(1, 3, 3, 4).expand(8, 3, 3, 4)
    assert len({tuple(picture.flatten().tolist()) for picture in turn(oblong, torch.arange(8))}) == 4


def _options(**changes: object) -> ViewConfig:
    return replace(ViewConfig(), **changes)


def _drawn(config: ViewConfig, count: int = 4000) -> Drawn:
    return draw_views(count, config, torch.Generator().manual_seed(0))


def test_factors_follow_their_law() -> None:
    for law, middle in (("uniform", 1.25), ("log-uniform", 1.0)):
        factors = _drawn(_options(scale_law=law)).factors
        assert factors is not None
        assert 0.5 <= float(factors.min()) < 0.51
        assert 1.98 < float(factors.max()) <= 2.0
        assert float(factors.median()) == pytest.approx(middle, abs=0.03)


def test_what_is_off_is_not_drawn_and_draws_nothing_else_anew() -> None:
    plain, all_on = (
        _drawn(ViewConfig()),
        _drawn(_options(gamma=0.2, white_point=0.1, blur=1.0, jpeg=30, hed=0.1, crop=0.5)),
    )
    assert [values is None for values in plain] == [False, False, True, True, True, True, True, True]
    assert all(values is not None for values in all_on)
    assert plain.factors is not None
    assert all_on.factors is not None
    assert torch.equal(plain.factors, all_on.factors)
    unchanged = _drawn(_options(scale_low=1.0, scale_high=1.0))
    assert unchanged.factors is None
    assert plain.turns is not None
    assert unchanged.turns is not None
    assert torch.equal(plain.turns, unchanged.turns)
    assert _drawn(_options(mode="paper", scale_low=1.0, scale_high=1.0)).factors is not None, "it drops the residual"


def test_views_without_a_change_of_colour_are_the_turned_tile() -> None:
    tiles = torch.randint(1, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    stains = torch.tensor(RUIFROK).expand(3, 2, 3)
    drawn = _drawn(_options(scale_low=1.0, scale_high=1.0), 3)
    views = render_views(turned_planes(tiles, drawn), stains, drawn, "robust")
    assert torch.equal((views.a * 255).round().to(torch.uint8), turned_planes(tiles, drawn)[0])
    assert torch.equal(views.a, views.b)
    assert float(views.clipped_share) == 0.0
    assert _drawn(_options(mode="paper")).turns is None
    same, apart = (_drawn(_options(geometry=name)).turns for name in ("same", "independent"))
    assert same is not None
    assert apart is not None
    assert same.shape == (1, 4000), "one for both views"
    assert not torch.equal(apart[0], apart[1])


def test_gamma_and_white_point_act_on_the_density() -> None:
    tiles = torch.from_numpy(mix(PAIRS[0], 1, (32, 48))[None])
    stains = torch.tensor(unit(PAIRS[0])[None], dtype=torch.float32)
    one = torch.ones(2, 1, 2)
    drawn = Drawn(one, None, torch.full((2, 1), 1.5), torch.tensor([0.0, 0.02, 0.05]).expand(2, 1, 3), *[None] * 4)
    view = render_views(turned_planes(tiles, drawn), stains, drawn, "robust").a
    expected = (tiles.permute(0, 3, 1, 2).float().clamp(min=1) / 255) ** 1.5
    expected = expected * torch.tensor([0.0, 0.02, 0.05]).neg().exp().view(1, 3, 1, 1)
    torch.testing.assert_close(view, expected.clamp(min=1 / 255), atol=1e-5, rtol=0)


def test_without_the_gate_every_estimate_counts_and_none_is_changed() -> None:
    blank = np.full((48, 64, 3), 240, np.uint8)
    tiles = torch.from_numpy(np.stack([blank, mix(PAIRS[0], 1, (48, 64))]))
    gated, ungated = separate(tiles, CONFIG), separate(tiles, replace(CONFIG, gate=False))
    assert gated.trusted.tolist() == [False, True]
    assert ungated.trusted.tolist() == [True, True]
    assert torch.equal(gated.vectors, ungated.vectors)


def test_hed_jitter_is_scikit_images() -> None:
    """Their matrices have two digits and their amounts another unit: a shift of 1 is one of ln(10^6) here."""
    tile = mix(PAIRS[0], 1, (32, 48)).clip(1)
    drawn = torch.tensor([[[0.2, -0.1, 0.05], [0.03, -0.02, 0.01]]])
    density = [-(torch.from_numpy(tile[None, ..., channel]).float() / 255).log() for channel in range(3)]
    ours = torch.stack(jitter_hed(density, drawn), -1)[0].neg().exp().numpy()
    amounts = -np.log(tile / 255.0) @ np.linalg.inv(rgb_from_hed)
    changed = amounts * (1 + drawn[0, 0].numpy()) + drawn[0, 1].numpy()
    np.testing.assert_allclose(ours, np.exp(-changed @ rgb_from_hed), atol=0.004)
    still = torch.stack(jitter_hed(density, torch.zeros(1, 2, 3)), -1)
    torch.testing.assert_close(still, torch.stack(density, -1), atol=1e-5, rtol=0)


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
    tile = gaussian_filter(mix(PAIRS[0], 3, shape).astype(np.float32), (1.0, 1.0, 0.0))
    tile = np.clip(np.rint(tile), 0, 255).astype(np.uint8)
    images = torch.from_numpy(tile).permute(2, 0, 1).unsqueeze(0).float() / 255
    ours = jpeg(images, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    theirs = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(tile, level=quality, subsampling="420"))
    lost = np.abs(np.asarray(theirs, np.float32) - tile).mean()
    assert np.abs(ours - np.asarray(theirs, np.float32)).mean() < 0.35 * lost + 0.4


def test_every_image_has_its_own_quality_and_blur() -> None:
    tile = torch.from_numpy(mix(PAIRS[0], 3, (32, 48)))
    image = blur(tile.permute(2, 0, 1).unsqueeze(0).float() / 255, torch.tensor([1.0])).expand(2, -1, -1, -1)
    quality = torch.tensor([20.0, 90.0])
    torch.testing.assert_close(jpeg(image, quality)[1:], jpeg(image[1:], quality[1:]))
    errors = (jpeg(image, quality) - image).abs().mean(dim=(1, 2, 3))
    assert float(errors[0]) > 1.5 * float(errors[1])


@pytest.mark.parametrize(
    "changes",
    [{"scale_low": 0.0}, {"scale_low": 3.0}, {"gamma": -1.0}, {"jpeg": 96}, {"blur": -0.1}, {"gamma": math.nan}],
)
def test_impossible_views_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        _options(**changes)


def test_a_batch_equals_a_loop() -> None:
    tiles = torch.from_numpy(np.stack([mix(pair, 7, (40, 56)) for pair in PAIRS]))
    together = separate(tiles, CONFIG)
    for row in range(3):
        torch.testing.assert_close(separate(tiles[row : row + 1], CONFIG).vectors[0], together.vectors[row])


def test_a_crop_is_the_part_of_the_tile_enlarged() -> None:
    """Of a ramp along x and y the values at the corners are those of the window's."""
    ramp = torch.arange(64, dtype=torch.float32)
    planes = torch.stack([ramp.expand(64, 64), ramp.unsqueeze(1).expand(64, 64), torch.zeros(64, 64)])
    tiles = planes.to(torch.uint8).expand(3, 3, 64, 64)
    windows = torch.tensor([[1.0, 0.3, -0.8], [0.5, -1.0, 1.0], [0.25, 0.0, 0.0]])
    seen = crop(tiles, windows)
    assert torch.equal(seen[0], tiles[0]), "the whole tile"
    for number, (left, top, side) in ((1, (0, 32, 32)), (2, (24, 24, 16))):
        assert seen[number, 0, 5, [0, -1]].tolist() == pytest.approx([left, left + side - 1], abs=1)
        assert seen[number, 1, [0, -1], 5].tolist() == pytest.approx([top, top + side - 1], abs=1)


def test_windows_lie_within_their_bounds_and_are_each_views_own() -> None:
    window = _drawn(_options(crop=0.4)).window
    assert window is not None
    assert 0.4 <= float(window[..., 0].min()) < 0.41
    assert 0.99 < float(window[..., 0].max()) <= 1.0
    assert float(window[..., 1:].abs().max()) <= 1.0
    assert not torch.equal(window[0], window[1])
    with pytest.raises(UsageError, match="crop = 0"):
        _options(crop=0.0)
