"""No effect gives the floor, a growing effect a growing measure, and groups' own marks are not taken for a site's."""

from dataclasses import replace

import numpy as np
import pytest

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import METRICS, EncoderResult, EvaluateConfig, PairFeatures, evaluate
from wsi_lmc.evaluation.distances import distances
from wsi_lmc.evaluation.samples import Sample, equal_sites, gather
from wsi_lmc.evaluation.siteprobe import site_probe

from tests.planted import Planted, planted_set  # isort: skip

CONFIG = EvaluateConfig(k=20, resamples=200, distance_resamples=30, transport_tiles=60)
SIZES = (0.0, 1.0, 2.0, 4.0)
BATCH = ("w2_relative", "w2", "centroid_shift", "transport_relative", "site_balanced_accuracy", "site_auroc", "kbet")
MIXED = ("ilisi", "silhouette_batch", "robustness_index")
TRANSFER = ("transfer_balanced_accuracy", "transfer_f1")
PAIRS = ("pair_top1", "pair_topk", "pair_cosine")


def _pairs(shift: float) -> PairFeatures:
    rng = np.random.default_rng(1)
    first = rng.normal(size=(80, 5))
    second = first + 0.2 * rng.normal(size=first.shape) + shift * rng.normal(size=(1, 5))
    return PairFeatures(first, second, np.arange(80) // 8)


@pytest.fixture(scope="module")
def growing() -> dict[float, EncoderResult]:
    """Everything measured under no, small, larger and large effects of the site."""
    found = {}
    for size in SIZES:
        one = planted_set("set", Planted(site=size, kind=2.0, private=0.2, groups=8))
        found[size] = evaluate([one], CONFIG, {"set": _pairs(size)}).encoders[0]
    return found


def _values(growing: dict[float, EncoderResult], name: str) -> list[float]:
    found = [growing[size].find(name) for size in SIZES]
    return [measure.value for measure in found if measure is not None]


@pytest.mark.parametrize("name", [*BATCH, *MIXED, *TRANSFER, *PAIRS])
def test_a_growing_effect_of_the_site_is_a_worse_measure(growing: dict[float, EncoderResult], name: str) -> None:
    values = _values(growing, name)
    assert len(values) == len(SIZES)
    worse = values if METRICS[name].better == "lower" else values[::-1]
    assert worse == sorted(worse)
    assert values[0] != values[-1]


def test_every_metric_is_measured(growing: dict[float, EncoderResult]) -> None:
    for result in growing.values():
        assert {measure.metric for measure in result.measures} == set(METRICS)
        assert result.left_out == ()
        for measure in result.measures:
            assert np.isfinite(measure.value)
            assert measure.tiles <= measure.of == (80 if measure.metric in PAIRS else result.of)
            assert measure.over == ("groups" if measure.metric != "transport_relative" else "")
            if measure.low is not None and measure.high is not None:
                assert measure.low <= measure.value + 1e-9
                assert measure.value <= measure.high + 1e-9


def _over(name: str, sizes: tuple[float, ...], effect: str, **other: float) -> list[float]:
    """A metric's values for sizes of one planted effect."""
    planted = [replace(Planted(groups=8, private=0.2), **{effect: size}, **other) for size in sizes]
    found = [evaluate([planted_set("set", what)], CONFIG).encoders[0] for what in planted]
    between = ("north",) if name == "source_auroc" else ()
    measures = [result.find(name, between) for result in found]
    return [measure.value for measure in measures if measure is not None]


@pytest.mark.parametrize("name", ["clisi", "silhouette_label", "source_auroc"])
def test_a_growing_effect_of_the_class_is_a_better_measure(name: str) -> None:
    values = _over(name, (0.0, 1.0, 2.0, 4.0), "kind")
    assert len(values) == 4
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.05


@pytest.mark.parametrize("name", ["transfer_auroc", "transfer_average_precision"])
def test_a_site_that_turns_the_classes_direction_is_a_worse_transfer(name: str) -> None:
    values = _over(name, (0.0, 0.5, 1.0, 1.5), "turn", kind=2.0)
    assert len(values) == 4
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.2


def test_no_metric_is_without_a_planted_effect() -> None:
    of_the_class = {"clisi", "silhouette_label", "source_auroc"}
    assert {*BATCH, *MIXED, *TRANSFER, *PAIRS, "transfer_auroc", "transfer_average_precision"} | of_the_class == set(
        METRICS
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_distribution_gives_the_floor_and_no_finding(seed: int) -> None:
    what = Planted(private=0.5, groups=10, sites=("a", "b", "c"), seed=seed)
    result = evaluate([planted_set("set", what)], CONFIG).encoders[0]
    for name in (*BATCH[:3], "transport_relative", "kbet", *MIXED[:2]):
        measure = result.find(name)
        assert measure is not None
        assert measure.floor is not None
        assert measure.value == pytest.approx(measure.floor, rel=0.35, abs=0.06), name
    for name in (*BATCH[4:6], "robustness_index", "transfer_auroc", "transfer_balanced_accuracy"):
        measure = result.find(name)
        assert measure is not None
        assert measure.low is not None
        assert measure.high is not None
        assert measure.chance is not None
        assert measure.low - 0.03 <= measure.chance <= measure.high + 0.03, name


def test_w2_of_one_distribution_is_not_zero_and_its_floor_says_so() -> None:
    """Two samples of N(0, I) in 192 dimensions, 500 tiles each, lie some 6 apart: that is no site."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 192)).astype(np.float32)
    group = np.arange(2000) // 100
    sample = Sample(features, group // 10, group, np.full(2000, -1), ("a", "b"), (), 2000)
    w2 = next(one for one in distances(sample, 2, 0) if one.metric == "w2")
    assert w2.value == pytest.approx(6.2, abs=0.15)
    assert w2.floor == pytest.approx(w2.value, rel=0.02)


def test_the_scale_of_features_does_not_count_where_it_says_so() -> None:
    one = planted_set("set", Planted(site=2.0, kind=1.0))
    large = replace(one, slides=tuple(replace(slide, features=slide.features * 50) for slide in one.slides))
    small_result, large_result = evaluate([one, large], CONFIG).encoders
    for measure in small_result.measures:
        other = large_result.find(measure.metric, measure.between)
        assert other is not None
        if measure.metric == "w2":
            assert other.value == pytest.approx(50 * measure.value, rel=1e-3)
        elif measure.metric in ("ilisi", "clisi"):  # weights fall with the distance itself
            assert other.value == pytest.approx(measure.value, abs=0.02)
        else:
            assert other.value == pytest.approx(measure.value, rel=1e-3, abs=1e-3)


def _probed(what: Planted) -> list[float]:
    one = planted_set("set", what)
    return [score.value for score in site_probe(equal_sites(gather(one.slides, (), one.tiles), 9999, 0), 10, 0)[0]]


def test_a_known_shift_gives_the_known_accuracy() -> None:
    """Two unit Gaussians 2 apart: 0.841 of a normal distribution lies under 1; of the AUROC 0.921."""
    accuracy, area = _probed(Planted(site=2.0, groups=12, tiles=60))
    assert accuracy == pytest.approx(0.841, abs=0.03)
    assert area == pytest.approx(0.921, abs=0.03)


def test_groups_own_marks_are_not_taken_for_a_site() -> None:
    """Each group lies somewhere of its own: an ungrouped split would score near 1."""
    values = [_probed(Planted(private=4.0, groups=8, seed=seed))[0] for seed in range(4)]
    assert np.mean(values) < 0.68


def test_three_sites_have_a_chance_of_a_third() -> None:
    one = planted_set("set", Planted(sites=("a", "b", "c")))
    scores, _ = site_probe(equal_sites(gather(one.slides, (), one.tiles), 9999, 0), 100, 0)
    assert [score.chance for score in scores] == [pytest.approx(1 / 3), 0.5]
    assert scores[0].value == pytest.approx(1 / 3, abs=0.1)


def test_pairs_of_sites_are_measured_apart() -> None:
    """The site that lies far off is named; the other two are near each other."""
    one = planted_set("set", Planted(sites=("a", "b", "z"), site=0.0))
    slides = [replace(s, features=s.features + 5.0 * (s.site == "z")) for s in one.slides]
    result = evaluate([replace(one, slides=tuple(slides))], CONFIG).encoders[0]
    near, far = result.find("w2_relative", ("a", "b")), result.find("w2_relative", ("b", "z"))
    assert near is not None and far is not None  # noqa: PT018
    assert far.value > 5 * near.value
    assert near.tiles * 3 == result.find("w2_relative").tiles * 2  # pyright: ignore[reportOptionalMemberAccess]


def test_a_site_of_one_group_is_measured_over_tiles_and_said() -> None:
    one = planted_set("set", Planted(site=1.0, kind=1.0))
    slides = [replace(s, patient="the same") if s.site == "south" else s for s in one.slides]
    result = evaluate([replace(one, slides=tuple(slides))], CONFIG).encoders[0]
    w2 = result.find("w2_relative")
    assert w2 is not None
    assert w2.over == "groups (tiles at south)"
    assert "too narrow" in w2.note
    assert [missing.metric for missing in result.left_out] == ["site_balanced_accuracy", "site_auroc"]
    assert "south: one group only" in result.left_out[0].reason
    tested = result.find("transfer_auroc", ("north", "south"))
    assert tested is not None
    assert tested.over == "tiles"
    back = result.find("transfer_auroc", ("south", "north"))
    assert back is not None
    assert "too few groups to choose by" in back.note


def test_slides_that_were_seen_count_in_the_transfer_alone() -> None:
    one = planted_set("set", Planted(kind=2.0))
    result = evaluate([one], replace(CONFIG, source="north", seen=("north-0", "north-1"))).encoders[0]
    w2, tested = result.find("w2_relative"), result.find("transfer_auroc", ("north", "south"))
    assert w2 is not None and tested is not None  # noqa: PT018
    assert w2.groups == 10
    assert result.find("source_auroc", ("north",)).groups == 6  # pyright: ignore[reportOptionalMemberAccess]
    assert result.find("transfer_auroc", ("south", "north")) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "north"}, "two sites"),
        ({"site": ""}, "two sites"),
    ],
)
def test_fewer_than_two_sites_are_refused(change: dict[str, str], words: str) -> None:
    one = planted_set("set", Planted())
    with pytest.raises(UsageError, match=words):
        evaluate([replace(one, slides=tuple(replace(slide, **change) for slide in one.slides))], CONFIG)


def test_a_slide_without_site_and_an_unknown_source_are_refused() -> None:
    one = planted_set("set", Planted())
    nameless = replace(one, slides=(replace(one.slides[0], site=""), *one.slides[1:]))
    with pytest.raises(UsageError, match="1 slides without a site, north-0"):
        evaluate([nameless], CONFIG)
    with pytest.raises(UsageError, match="no site west"):
        evaluate([one], replace(CONFIG, source="west"))


def test_without_labels_the_site_is_measured_all_the_same() -> None:
    one = planted_set("set", Planted(site=2.0))
    bare = replace(one, slides=tuple(replace(s, labels=np.full(len(s.labels), -1)) for s in one.slides))
    result = evaluate([bare], CONFIG).encoders[0]
    assert {measure.metric for measure in result.measures} == {*BATCH, "ilisi", "silhouette_batch"}
    assert {missing.metric for missing in result.left_out} == {
        "robustness_index", "clisi", "silhouette_label", "transfer_auroc"
    }  # fmt: skip


def test_features_that_are_no_numbers_are_refused() -> None:
    one = planted_set("set", Planted())
    one.slides[3].features[2, 1] = np.nan
    with pytest.raises(UsageError, match="north-3 that are no numbers"):
        evaluate([one], CONFIG)


def test_very_long_features_are_measured_in_their_leading_components() -> None:
    one = planted_set("set", Planted(site=30.0, dimension=300))
    result = evaluate([one], replace(CONFIG, distance_resamples=2, resamples=10)).encoders[0]
    shift, w2 = result.find("centroid_shift"), result.find("w2")
    assert shift is not None and w2 is not None  # noqa: PT018
    assert "256 leading of 300 principal components" in shift.note
    assert w2.value > 29.5


def test_features_that_never_change_break_nothing() -> None:
    one = planted_set("set", Planted())
    flat = replace(one, slides=tuple(replace(s, features=np.ones_like(s.features)) for s in one.slides))
    result = evaluate([flat], CONFIG).encoders[0]
    assert all(np.isfinite(measure.value) for measure in result.measures)
    accuracy = result.find("site_balanced_accuracy")
    assert accuracy is not None
    assert accuracy.value == pytest.approx(0.5, abs=0.01)
