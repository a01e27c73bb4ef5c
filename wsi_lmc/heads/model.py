"""A trained model on disk: ``model.safetensors`` (what the heads learnt) and ``model.json`` (all that is to be known).

One head a seed; their probabilities are averaged. Nothing in it is ever executed on reading.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float64
from safetensors import SafetensorError

from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.heads.folds import Chosen
from wsi_lmc.heads.slides import ATTENTION, SlideHead, SlideKind
from wsi_lmc.heads.tiles import TileHead, TileKind
from wsi_lmc.provenance import created_by
from wsi_lmc.publish import publishing

SCHEMA, SCHEMA_VERSION = "wsi-lmc/classifier", 1
WEIGHTS, CARD = "model.safetensors", "model.json"
Level = Literal["tile", "slide"]
HeadKind = Literal["logistic", "knn", "mlp", "mean", "abmil", "transformer"]


@dataclass(frozen=True)
class ModelCard:
    """What must be known to use a model, and how it came about.

    ``encoder`` has the name, SHA-256 and normalisation of the features, ``tile_mpp`` their microns per pixel.
    ``majority`` is the most frequent class at the source. ``threshold`` (of two classes) is that of the last class's
    averaged probability, of best F1 out of fold at the source, ``seed_thresholds`` the same for each seed alone.
    ``trained_on`` says of how much, ``source_scores`` how it did out of fold.
    """

    level: Level
    head: HeadKind
    classes: tuple[str, ...]
    encoder: Mapping[str, Any]
    tile_mpp: float
    source: str
    majority: int
    trained_on: Mapping[str, Any]
    settings: Mapping[str, Any]
    threshold: float | None = None
    seed_thresholds: tuple[float, ...] = ()
    source_scores: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Prediction:
    """Of one slide: probabilities by seed, of each tile or (one row) of the slide; a number or more a tile to be drawn.

    What ``marks`` are is told by :meth:`Model.mark_names`.
    """

    by_seed: Float64[np.ndarray, "seeds n k"]
    marks: Float[np.ndarray, "tiles m"]

    @property
    def mean(self) -> Float64[np.ndarray, "n k"]:
        """Probabilities averaged over the seeds."""
        return self.by_seed.mean(axis=0)


@dataclass(frozen=True)
class Model:
    """Heads of one kind, one a seed, and their card."""

    card: ModelCard
    heads: tuple[TileHead | SlideHead, ...]

    @property
    def mark_names(self) -> tuple[str, ...]:
        """What is measured of each tile: its attention, or its probability of each class."""
        return mark_names(self.card.head, self.card.classes)

    def predict(self, features: Float[np.ndarray, "n d"]) -> Prediction:
        """Predict a slide from all of its tiles (one at least)."""
        return predict(self.heads, features)


def mark_names(head: HeadKind, classes: tuple[str, ...]) -> tuple[str, ...]:
    """What is measured of each tile: its attention, or its probability of each class."""
    return (ATTENTION,) if head in ("abmil", "transformer") else tuple(f"probability {name}" for name in classes)


def predict(heads: Sequence[TileHead | SlideHead], features: Float[np.ndarray, "n d"]) -> Prediction:
    """Predict a slide from all of its tiles (one at least) with the heads of several seeds.

    Raises:
        UsageError: the features have another width.
    """
    dim = len(heads[0].arrays["mean"])
    if features.shape[1] != dim:
        raise UsageError(f"{features.shape[1]} features a tile", f"{dim}, as in training", "Embed with that encoder.")
    found = [_predict(head, features) for head in heads]
    return Prediction(np.stack([own for own, _ in found]), np.mean([marks for _, marks in found], axis=0))


def save_model(out: Path, folder: Path, model: Model) -> None:
    """Publish a model's folder below ``out``; one that was there is replaced."""
    tensors = {
        f"{number}.{name}": np.ascontiguousarray(array)
        for number, head in enumerate(model.heads)
        for name, array in head.arrays.items()
    }
    weights = safetensors.numpy.save(tensors)
    card = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created_by": created_by(),
        **asdict(model.card),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "heads": [
            {"chosen": asdict(head.chosen), "form": head.form if isinstance(head, SlideHead) else {}}
            for head in model.heads
        ],
    }
    with publishing(out, folder) as draft:
        draft.mkdir()
        (draft / WEIGHTS).write_bytes(weights)
        (draft / CARD).write_text(json.dumps(without_nan(card), indent=1) + "\n", encoding="utf-8")


def load_model(folder: Path, device: str = "cpu") -> Model:
    """Read a model that :func:`save_model` wrote.

    Raises:
        StoreError: it is not there, damaged, or of another version.
    """
    try:
        weights = (folder / WEIGHTS).read_bytes()
        stated: dict[str, Any] = dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
        if (stated["schema"], stated["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
            raise _broken(folder, f"schema {stated['schema']!r}, version {stated['schema_version']!r}")
        if hashlib.sha256(weights).hexdigest() != stated["sha256"]:
            raise _broken(folder, f"{WEIGHTS} of another SHA-256 than {CARD} states")
        known: dict[str, Any] = {name: stated[name] for name in ModelCard.__dataclass_fields__}
        lists = {name: tuple(stated[name]) for name in ("classes", "seed_thresholds", "source_scores")}
        card = ModelCard(**{**known, **lists})
        if card.head not in get_args(HeadKind) or card.level not in get_args(Level):
            raise _broken(folder, f"a head {str(card.head)[:40]!r}")
        tensors = safetensors.numpy.load(weights)
        return Model(card, tuple(_head(card, tensors, each, device) for each in enumerate(stated["heads"])))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise _broken(folder, f"no whole model ({type(error).__name__})") from error


def without_nan(value: object) -> object:
    """The same for JSON, which has no NaN or infinity: null instead; tuples become lists."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _head(
    card: ModelCard, tensors: Mapping[str, np.ndarray], stated: tuple[int, Mapping[str, Any]], device: str
) -> TileHead | SlideHead:
    number, own = stated
    prefix = f"{number}."
    arrays = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    chosen = own["chosen"]
    loss = float("nan") if chosen["loss"] is None else float(chosen["loss"])
    found = Chosen(str(chosen["setting"]), float(chosen["value"]), loss, tuple(chosen["among"]))
    if "mean" not in arrays or "scale" not in arrays:
        raise ValueError("no mean or scale")
    if card.level == "tile":
        return TileHead(cast(TileKind, card.head), arrays, found)
    return SlideHead(cast(SlideKind, card.head), arrays, found, dict(own["form"]), device)


def _predict(
    head: TileHead | SlideHead, features: Float[np.ndarray, "n d"]
) -> tuple[Float64[np.ndarray, "rows k"], Float[np.ndarray, "n m"]]:
    if isinstance(head, TileHead):
        probabilities = head.probabilities(features)
        return probabilities, probabilities
    predicted = head.predict(features)
    return predicted.probabilities[None], predicted.tiles


def _broken(folder: Path, found: str) -> StoreError:
    return StoreError(f"{folder}: {found}", f"{WEIGHTS} and {CARD} as 'wsi-lmc classify' wrote them", "Train it again.")
