"""The loss against numpy's correlation, its known values, and its gradient."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from wsi_lmc.loss import LEAST_STD, cross_correlation_loss, effective_rank, embedding_std

WEIGHT = 0.005


def _pair(count: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, dim, generator=generator) * 3 + 5
    return first, 0.7 * first + torch.randn(count, dim, generator=generator)


def test_is_the_formula() -> None:
    first, second = _pair(17, 5, 0)
    correlation = np.corrcoef(first.numpy(), second.numpy(), rowvar=False)[:5, 5:]
    invariance = ((1 - np.diag(correlation)) ** 2).sum()
    redundancy = (correlation**2).sum() - (np.diag(correlation) ** 2).sum()
    terms = cross_correlation_loss(first, second, WEIGHT)
    np.testing.assert_allclose(terms.invariance, invariance, rtol=1e-4)
    np.testing.assert_allclose(terms.redundancy, redundancy, rtol=1e-4)
    np.testing.assert_allclose(terms.total, invariance + WEIGHT * redundancy, rtol=1e-4)
    np.testing.assert_allclose(terms.mean_diagonal, np.diag(correlation).mean(), rtol=1e-4)


def test_known_values_of_a_batch_of_32() -> None:
    """Independent views cost about 204, everything on one direction about 183."""
    generator = torch.Generator().manual_seed(1)
    independent = [torch.randn(32, 192, generator=generator) for _ in range(2)]
    values = []
    for _ in range(8):
        one, other = (torch.randn(32, 192, generator=generator) for _ in range(2))
        values.append(float(cross_correlation_loss(one, other, WEIGHT).total))
    assert np.mean(values) == pytest.approx(204, abs=4)
    line = torch.randn(32, 1, generator=generator).expand(32, 192)
    assert float(cross_correlation_loss(line, line, WEIGHT).total) == pytest.approx(WEIGHT * 192 * 191, rel=1e-3)
    assert float(cross_correlation_loss(independent[0], independent[0], WEIGHT).invariance) == pytest.approx(
        0, abs=1e-6
    )


def test_the_spread_term_is_the_hinge_on_deviations() -> None:
    first, second = _pair(17, 5, 8)
    first, second = first * torch.tensor([0.01, 0.1, 0.2, 1.0, 3.0]), second * 0.05
    deviations = torch.stack([first.std(0), second.std(0)])
    expected = float((LEAST_STD - deviations).clamp(min=0).sum(1).mean())
    assert 1.0 < expected < 5 * LEAST_STD
    plain, spread = (cross_correlation_loss(first, second, WEIGHT, spread_weight=weight) for weight in (0.0, 2.0))
    assert float(plain.spread) == pytest.approx(expected, rel=1e-4)
    assert float(plain.total) == pytest.approx(float(plain.invariance + WEIGHT * plain.redundancy))
    assert float(spread.total - plain.total) == pytest.approx(2.0 * expected, rel=1e-4)


def test_the_spread_term_pulls_features_apart_that_correlation_alone_leaves_all_but_constant() -> None:
    reached = {}
    for weight in (0.0, 1.0):
        tiles = torch.randn(64, 4, generator=torch.Generator().manual_seed(5))
        layer = torch.nn.Parameter(torch.eye(4) * 0.01)
        optimiser = torch.optim.SGD([layer], 0.05)
        for _ in range(200):
            optimiser.zero_grad()
            embedded = tiles @ layer
            cross_correlation_loss(embedded, embedded * 1.01, WEIGHT, spread_weight=weight).total.backward()
            optimiser.step()
        reached[weight] = float(embedding_std((tiles @ layer).detach()))
    assert reached[0.0] < 0.1
    assert reached[1.0] == pytest.approx(LEAST_STD, abs=0.1)


def test_shift_and_scale_of_a_feature_do_not_matter() -> None:
    first, second = _pair(16, 4, 2)
    moved = cross_correlation_loss(first * torch.tensor([2.0, 0.5, 3.0, 1.0]) + 7, second - 3, WEIGHT)
    torch.testing.assert_close(moved.total, cross_correlation_loss(first, second, WEIGHT).total, rtol=1e-3, atol=1e-4)


def test_gradient_is_that_of_finite_differences() -> None:
    first, second = _pair(6, 3, 3)
    first.requires_grad_()
    cross_correlation_loss(first, second, WEIGHT).total.backward()
    assert first.grad is not None
    for row, column in ((0, 0), (2, 1), (5, 2)):
        step = torch.zeros_like(first)
        step[row, column] = 1e-2
        with torch.no_grad():
            up, down = (cross_correlation_loss(first + sign * step, second, WEIGHT).total for sign in (1, -1))
        assert float(first.grad[row, column]) == pytest.approx(float(up - down) / 2e-2, rel=0.03, abs=2e-3)


def test_is_computed_in_float32_under_autocast() -> None:
    first, second = _pair(32, 8, 4)
    plain = cross_correlation_loss(first, second, WEIGHT).total
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cross_correlation_loss(first, second, WEIGHT).total, plain)


def test_a_dead_feature_gives_no_nan() -> None:
    first, second = _pair(8, 3, 5)
    first[:, 1] = 2.0
    terms = cross_correlation_loss(first, second, WEIGHT)
    assert bool(torch.isfinite(terms.total))


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_effective_rank_counts_directions(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    basis = torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q[:rank]
    rows = torch.linalg.qr(torch.randn(500, rank, generator=generator)).Q @ basis
    assert float(effective_rank(rows)) == pytest.approx(rank, rel=0.02)


def test_spread_of_a_point_is_zero() -> None:
    assert float(embedding_std(torch.full((7, 3), 4.0))) == 0
    assert float(embedding_std(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))) == pytest.approx((2**0.5 + 8**0.5) / 2)


@pytest.mark.parametrize(("count", "dim"), [(32, 192), (64, 16)])
def test_value_and_gradient_are_lightlys(count: int, dim: int, oracle: Callable[[str], ModuleType]) -> None:
    """Lightly norms by batch normalisation, whose epsilon of 1e-5 is the difference that is left."""
    theirs = oracle("lightly.loss.barlow_twins_loss").BarlowTwinsLoss(lambda_param=WEIGHT)
    gradients, values = [], []
    for loss in (theirs, lambda a, b: cross_correlation_loss(a, b, WEIGHT).total):
        first, second = (side.clone().requires_grad_() for side in _pair(count, dim, 6))
        value = loss(first, second)
        value.backward()
        values.append(value.item())
        assert first.grad is not None
        assert second.grad is not None
        gradients.append(torch.cat([first.grad, second.grad]))
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_gradient_is_autograds_of_the_plain_formula() -> None:
    def plain(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        a, b = (side - side.mean(0) for side in (first, second))
        correlation = (a / a.norm(dim=0)).T @ (b / b.norm(dim=0))
        off = correlation - torch.diag(correlation.diagonal())
        return (1 - correlation.diagonal()).square().sum() + WEIGHT * off.square().sum()

    gradients = []
    for loss in (plain, lambda a, b: cross_correlation_loss(a, b, WEIGHT).total):
        first, second = (side.double().float().clone().requires_grad_() for side in _pair(24, 9, 7))
        loss(first, second).backward()
        assert first.grad is not None
        gradients.append(first.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_the_floor_of_a_batch_of_32_is_4_86() -> None:
    """Equal views of full rank in random directions: C_ii = 1, and sum C_ij^2 is at least 192^2 / 31."""
    basis = torch.linalg.qr(torch.randn(192, 31, generator=torch.Generator().manual_seed(3))).Q
    left = torch.linalg.qr(torch.randn(32, 31, generator=torch.Generator().manual_seed(4))).Q
    left = torch.linalg.qr(torch.cat([torch.ones(32, 1), left], 1)).Q[:, 1:]
    embedding = left @ basis.T
    terms = cross_correlation_loss(embedding, embedding, WEIGHT)
    assert float(terms.invariance) == pytest.approx(0, abs=1e-6)
    assert float(terms.total) == pytest.approx(4.86, abs=0.3)
