"""Which tiles are measured, what is drawn anew for an interval, and how groups are dealt for a floor."""

from dataclasses import replace

import numpy as np
import pytest

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import EvaluateConfig, SlideFeatures, prepare
from wsi_lmc.evaluation.resampling import centred_interval, halves, interval, pretended_sites, units_of
from wsi_lmc.evaluation.samples import common_tiles, equal_cells, equal_sites, gather, thin

from tests.planted import Planted, planted_set  # isort: skip

WHAT = Planted(sites=("a", "b", "c"), groups=4)


def test_sets_are_compared_on_the_tiles_that_all_have() -> None:
    one = planted_set("one", WHAT)
    rng = np.random.default_rng(0)
    turned = []
    for slide in one.slides[1:]:  # without the first slide, the others' tiles in another order and not all
        rows = rng.permutation(len(slide.labels))[2:]
        assert slide.origins is not None
        turned.append(
            replace(slide, features=slide.features[rows] * 2, labels=slide.labels[rows], origins=slide.origins[rows])
        )
    (first, second), dropped = common_tiles([one, replace(one, name="two", slides=tuple(turned[::-1]))])
    assert dropped == len(one.slides[0].labels) + 2 * 11
    assert [s.slide_id for s in first.slides] == [s.slide_id for s in second.slides]
    for a, b in zip(first.slides, second.slides, strict=True):
        np.testing.assert_array_equal(a.origins, b.origins)
        np.testing.assert_array_equal(a.features * 2, b.features)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_sets_without_a_common_tile_are_refused() -> None:
    one, other = planted_set("one", WHAT), planted_set("two", replace(WHAT, sites=("x", "y")))
    with pytest.raises(UsageError, match="different tiles"):
        common_tiles([one, other])
    bare = replace(one, slides=tuple(replace(s, origins=None) for s in one.slides[:3]))
    with pytest.raises(UsageError, match="without origins"):
        common_tiles([bare, one])


def test_the_same_tiles_are_drawn_of_every_set() -> None:
    one = planted_set("one", WHAT)
    two = replace(one, name="two", slides=tuple(replace(s, features=s.features * 3) for s in one.slides))
    ready, dropped = prepare([one, two], EvaluateConfig(tiles_per_site=50, seed=4))
    assert dropped == 0
    a, b = (gather(s.slides, s.classes, s.tiles) for s in ready)
    assert np.bincount(a.site).tolist() == [50, 50, 50]
    np.testing.assert_array_equal(a.features * 3, b.features)
    other = gather(thin(one, 50, 5).slides, one.classes, one.tiles)
    assert not np.array_equal(other.features, a.features), "the seed decides"
    assert a.of == one.tiles


def test_thinning_draws_all_tiles_of_a_site_alike() -> None:
    slides = tuple(
        SlideFeatures(f"s{n}", f"s{n}", "a", np.full((count, 1), float(n)), np.zeros(count, np.int64))
        for n, count in enumerate((900, 100))
    )
    drawn = thin(replace(planted_set("x", WHAT), slides=slides), 500, 0)
    assert len(drawn.slides[0].labels) == pytest.approx(450, abs=25)
    assert sum(len(s.labels) for s in drawn.slides) == 500


def test_sites_and_cells_get_equally_many_tiles() -> None:
    one = planted_set("one", WHAT)
    whole = gather((*one.slides[:6], *one.slides[8:]), one.classes, one.tiles)
    fewest = int(np.bincount(whole.site).min())
    assert np.bincount(equal_sites(whole, 9999, 0).site).tolist() == [fewest] * 3
    assert np.bincount(equal_sites(whole, 20, 0).site).tolist() == [20] * 3
    cells = equal_cells(whole, 40, 0)
    assert np.bincount(cells.site * 2 + cells.label).tolist() == [20] * 6
    rare = replace(whole, label=np.where((whole.site == 1) & (whole.label == 1), -1, whole.label))
    assert set(equal_cells(rare, 40, 0).label.tolist()) == {0}, "a class that one site lacks does not count"


def test_groups_are_drawn_within_sites() -> None:
    group, site = np.asarray([0, 0, 1, 2, 2, 2, 3]), np.asarray([0, 0, 0, 1, 1, 1, 1])
    units = units_of(group, site, ("a", "b"))
    assert units.over == "groups"
    for weights in units.weights(50, np.random.default_rng(0)):
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 3] == weights[:, 5]).all()
        assert (weights[:, 0] + weights[:, 2] == 2).all(), "as many groups of each site as there are"
        assert len(np.unique(weights[:, 0])) == 3


def test_a_lonely_group_is_drawn_by_tiles_and_a_shared_one_whole() -> None:
    group, site = np.asarray([0, 0, 0, 1, 2]), np.asarray([0, 0, 0, 1, 1])
    units = units_of(group, site, ("a", "b"))
    assert units.over == "groups (tiles at a)"
    assert len(units.stratum) == 5
    assert units_of(group[:3], site[:3], ("a",)).over == "tiles"
    shared = units_of(np.asarray([0, 1, 0, 1, 2]), np.asarray([0, 0, 1, 1, 1]), ("a", "b"))
    assert len(shared.stratum) == 3
    assert set(shared.stratum.tolist()) == {0}


def test_halves_never_share_a_group() -> None:
    group = np.repeat(np.arange(7), [40, 3, 5, 9, 20, 11, 2])
    sizes = set()
    for seed in range(10):
        first, second = halves(group, np.random.default_rng(seed))
        assert not set(group[first]) & set(group[second])
        assert sorted([*first, *second]) == list(range(90))
        assert min(len(first), len(second)) >= 40
        sizes.add(tuple(first.tolist()))
    assert len(sizes) > 1
    first, second = halves(np.zeros(9, np.int64), np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(9))


def test_pretended_sites_keep_groups_whole_and_deal_each_site_evenly() -> None:
    group = np.repeat(np.arange(12), 5)
    site = np.repeat([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], 5)
    dealt = pretended_sites(group, site, np.random.default_rng(0))
    assert dealt is not None
    by_group = [set(dealt[group == number].tolist()) for number in range(12)]
    assert all(len(found) == 1 for found in by_group)
    assert [np.bincount(dealt[site == s]).tolist() for s in (0, 1)] == [[15, 15], [15, 15]]
    assert pretended_sites(group[:15], site[::4], np.random.default_rng(0)) is None


def test_intervals() -> None:
    drawn = np.linspace(0, 1, 1001)
    assert interval(drawn) == pytest.approx((0.025, 0.975))
    assert centred_interval(drawn, 10.0) == pytest.approx((9.525, 10.475))
    assert centred_interval(drawn, 0.2) == pytest.approx((0.0, 0.675))
    assert interval(np.full(3, np.nan)) == centred_interval(np.full(3, np.nan), 1.0) == (None, None)


def test_a_95_percent_interval_covers() -> None:
    """Of the mean of groups, which differ: groups drawn anew cover it, where tiles drawn anew would not."""
    covered = tiles = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(20), 30)
        values = rng.normal(size=20)[group] + 0.3 * rng.normal(size=600)
        for how in (group, np.arange(600)):
            units = units_of(how, np.zeros(600, np.int64), ("a",))
            drawn = np.concatenate([w @ values / w.sum(axis=1) for w in units.weights(200, rng)])
            low, high = interval(drawn)
            assert low is not None and high is not None  # noqa: PT018
            inside = low <= 0 <= high
            covered, tiles = covered + (inside and how is group), tiles + (inside and how is not group)
    assert covered >= 51
    assert tiles < 30
