"""Pairs of one tile in two staining protocols: each tile once, so that nothing else is its match."""

import numpy as np

from pipelines.centres import _pairs
from wsi_lmc.evaluation import EvaluateConfig, FeatureSet, SlideFeatures, evaluate

PROTOCOLS, TILES = 4, 30


def _slides(shift: float) -> list[SlideFeatures]:
    """Two slides in four protocols; a protocol moves all features by ``shift``."""
    rng = np.random.default_rng(0)
    tiles = rng.normal(0, 1, (2, TILES, 8))
    return [
        SlideFeatures(f"P{protocol}-{slide}", f"patient {slide}", f"P{protocol}",
                      (tiles[slide] + shift * protocol).astype(np.float32), np.full(TILES, -1))
        for protocol in range(PROTOCOLS)
        for slide in range(2)
    ]  # fmt: skip


def test_a_tile_stands_once_beside_itself_in_the_next_protocol() -> None:
    pairs = _pairs(_slides(shift=10.0), PROTOCOLS)
    assert pairs.first.shape == pairs.second.shape == (2 * TILES, 8)
    np.testing.assert_allclose(pairs.second - pairs.first, 10.0, atol=1e-5)
    assert np.bincount(pairs.group).tolist() == [TILES, TILES]
    own = np.rint((pairs.first.mean(axis=1) + 15.0) / 10.0)
    assert set(own.tolist()) == {0.0, 1.0, 2.0}, "all pairs of neighbouring protocols"


def test_features_that_do_not_know_the_protocol_find_every_tile() -> None:
    slides = _slides(shift=0.0)
    pairs = {"same": _pairs(slides, PROTOCOLS)}
    found = evaluate([FeatureSet("same", tuple(slides), (), len(slides) * TILES)], EvaluateConfig(by="protocol"), pairs)
    top1 = found.encoders[0].find("pair_top1")
    assert top1 is not None
    assert top1.value == 1.0
