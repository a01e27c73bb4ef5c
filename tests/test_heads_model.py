"""Models on disk: read back bit for bit, refused where they are damaged; without pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.heads.config import BagConfig, Recipe
from wsi_lmc.heads.examples import Bags, Examples
from wsi_lmc.heads.learning import HEADS
from wsi_lmc.heads.model import CARD, WEIGHTS, HeadKind, Model, ModelCard, load_model, save_model
from wsi_lmc.heads.slides import SlideHead
from wsi_lmc.heads.slides import cross_fit as cross_fit_slides
from wsi_lmc.heads.tiles import TileHead, fit

CLASSES = ("a", "b", "c")
TILES = np.random.default_rng(7).normal(0, 1, (23, 6)).astype(np.float16)


def _head(kind: HeadKind, seed: int) -> TileHead | SlideHead:
    rng = np.random.default_rng(0)
    labels, groups = np.arange(36) % 3, np.arange(36) // 3
    if kind in ("logistic", "knn", "mlp"):
        features = (rng.normal(0, 1, (36, 6)) + labels[:, None]).astype(np.float32)
        return fit(kind, Examples(features, labels, groups, 3), seed)
    tiles = tuple((rng.normal(0, 1, (5, 6)) + label).astype(np.float32) for label in labels)
    recipe = Recipe(BagConfig(hidden=8, epochs=1), seed)
    return cross_fit_slides(kind, Bags(tiles, labels, groups, 3), recipe).head


def _model(kind: HeadKind) -> Model:
    level = "tile" if kind in HEADS["tile"] else "slide"
    card = ModelCard(level, kind, CLASSES, {"sha256": "0" * 64}, 0.5, "north", 1, {"slides": 36}, {"seeds": 2})
    return Model(card, tuple(_head(kind, seed) for seed in range(2)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path, tmp_path / "model", _model("logistic"))
    return tmp_path / "model"


@pytest.mark.parametrize("kind", [*HEADS["tile"], *HEADS["slide"]])
def test_what_is_saved_is_read_back_bit_for_bit(kind: HeadKind, tmp_path: Path) -> None:
    model = _model(kind)
    save_model(tmp_path, tmp_path / "model", model)
    again = load_model(tmp_path / "model")
    assert again.card == model.card
    assert [head.chosen.value for head in again.heads] == [head.chosen.value for head in model.heads]
    one, two = model.predict(TILES), again.predict(TILES)
    np.testing.assert_array_equal(one.by_seed, two.by_seed)
    np.testing.assert_array_equal(one.marks, two.marks)
    assert one.by_seed.shape == (2, 23 if kind in HEADS["tile"] else 1, 3)
    assert one.marks.shape == (23, len(model.mark_names))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {WEIGHTS, CARD}
    save_model(tmp_path, tmp_path / "again", again)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "model" / WEIGHTS).read_bytes()


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(UsageError, match="5 features a tile; expected 6"):
        _model("logistic").predict(TILES[:, :5])


def test_damage_is_found(saved: Path) -> None:
    weights = saved / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="SHA-256"):
        load_model(saved)
    weights.unlink()
    with pytest.raises(StoreError, match="FileNotFoundError"):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"schema": "x"}, {"head": "forest"}, {"classes": None}, {"heads": 3}, {"level": "cell"},
     {"heads": [{"chosen": {}}]}],
)  # fmt: skip
def test_cards_of_another_kind_are_refused(saved: Path, change: dict[str, Any]) -> None:
    card = json.loads((saved / CARD).read_text())
    (saved / CARD).write_text(json.dumps(card | change))
    with pytest.raises(StoreError):
        load_model(saved)
    (saved / CARD).write_text("[")
    with pytest.raises(StoreError):
        load_model(saved)
