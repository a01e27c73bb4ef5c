"""The loss against numpy's correlation, its known values, and its gradient."""

import numpy as np
import pytest
import torch

from wsi_lmc.loss import cross_correlation_loss, effective_rank, embedding_std

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
