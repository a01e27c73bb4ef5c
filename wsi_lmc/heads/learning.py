"""From labelled slides of one site to a model: a head for each seed, and what it says of the source out of fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from wsi_lmc.errors import UsageError
from wsi_lmc.heads import slides, tiles
from wsi_lmc.heads.config import HeadConfig, Recipe
from wsi_lmc.heads.examples import Bags, Case, Examples, collect_bags, group_numbers, stack_tiles
from wsi_lmc.heads.model import HeadKind, Level, Prediction, predict
from wsi_lmc.heads.slides import SlideHead, SlideKind
from wsi_lmc.heads.tiles import CrossFit, TileHead, TileKind
from wsi_lmc.labels import NO_CLASS

Head = TileHead | SlideHead
HEADS: dict[Level, tuple[HeadKind, ...]] = {
    "tile": ("logistic", "knn", "mlp"),
    "slide": ("mean", "abmil", "transformer"),
}


@dataclass(frozen=True)
class Learned:
    """Heads by seed: those of all the source, and those of each fold; ``fold_of`` is the fold of a group, by seed.

    ``trained_on`` says of how much, in numbers; ``majority`` is the most frequent class.
    """

    heads: tuple[Head, ...]
    held_out: tuple[tuple[Head, ...], ...]
    fold_of: tuple[Mapping[str, int], ...]
    trained_on: Mapping[str, Any]
    majority: int

    def knows(self, case: Case) -> bool:
        """Whether something of the case's group was learnt from."""
        return case.group in self.fold_of[0]

    def predict(self, case: Case, features: Float[np.ndarray, "n d"]) -> Prediction:
        """Predict a slide by heads that know nothing of its group."""
        if not self.knows(case):
            return predict(self.heads, features)
        pairs = zip(self.held_out, self.fold_of, strict=True)
        return predict([heads[folds[case.group]] for heads, folds in pairs], features)


def level_of(head: HeadKind) -> Level:
    """Whether a head takes tiles or slides."""
    return next(level for level, heads in HEADS.items() if head in heads)


def learn(
    cases: Sequence[Case], head: HeadKind, classes: tuple[str, ...], config: HeadConfig, heard: Callable[[str], None]
) -> Learned:
    """Train a head for each seed on the labelled slides or tiles of the source, and nothing else.

    Args:
        cases: of the source.
        head: which.
        classes: their names; labels are numbers of these.
        config: the settings; seeds are 0, 1, ...
        heard: is told how each seed came out.

    Raises:
        UsageError: too few labels, a single class, or a class in fewer than three groups.
        TrainingError: a loss is no number.
    """
    if len(classes) < 2:
        raise UsageError(f"labels at the source: {', '.join(classes) or 'none'}", "two or more", "Label more.")
    own = [case for case in cases if _is_labelled(case, level_of(head))]
    source, fit = _source(own, head, len(classes), config)
    fitted: list[CrossFit[Any]] = []
    for seed in range(config.seeds):
        fitted.append(fit(seed))
        chosen = fitted[-1].head.chosen
        heard(f"seed {seed}: {chosen.setting} {chosen.value:g} chosen, loss {chosen.loss:.3f}")
    names = dict(zip(group_numbers(own).tolist(), (case.group for case in own), strict=True))
    fold_of = tuple(
        {names[group]: fold for group, fold in zip(source.groups.tolist(), each.folds.tolist(), strict=True)}
        for each in fitted
    )
    counts = np.bincount(source.labels, minlength=len(classes))
    trained_on = {
        "slides": len(own),
        "tiles": len(source.labels) if isinstance(source, Examples) else sum(map(len, source.tiles)),
        "of_tiles": sum(len(case.origins) for case in own),
        "patients": len(fold_of[0]),
        "examples_by_class": dict(zip(classes, counts.tolist(), strict=True)),
        "chosen": [asdict(each.head.chosen) for each in fitted],
    }
    heads, held_out = tuple(each.head for each in fitted), tuple(each.held_out for each in fitted)
    return Learned(heads, held_out, fold_of, trained_on, int(np.argmax(counts)))


def _source(
    cases: Sequence[Case], head: HeadKind, classes: int, config: HeadConfig
) -> tuple[Examples | Bags, Callable[[int], CrossFit[Any]]]:
    """What is learnt from, and how a seed learns from it."""
    if level_of(head) == "tile":
        examples = stack_tiles(cases, classes, config.train_tiles, seed=0)
        return examples, lambda seed: tiles.cross_fit(cast(TileKind, head), examples, seed)
    bags = collect_bags(cases, classes, config.train_tiles, seed=0)
    device = _device(head, config)
    return bags, lambda seed: slides.cross_fit(cast(SlideKind, head), bags, Recipe(config.bags, seed, device))


def _is_labelled(case: Case, level: Level) -> bool:
    """Whether anything can be learnt from a slide."""
    if level == "tile":
        return bool((case.tile_labels != NO_CLASS).any())
    return case.label != NO_CLASS and len(case.origins) > 0


def _device(head: HeadKind, config: HeadConfig) -> str:
    if head == "mean":
        return "cpu"
    from wsi_lmc.encoder import resolve_device  # torch only where it is needed

    return str(resolve_device(config.device))
