"""A head trained on one site's features and applied to others: what ``wsi-lmc classify`` does, from specs to files.

Everything that is chosen (a regularisation, an epoch, a threshold) is chosen on the source, by folds of its patients.
Labels of the targets are looked at once, by the scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wsi_lmc.classification.cohort import Cohort, Selection, class_names, find_slides, load_cohort
from wsi_lmc.errors import UsageError
from wsi_lmc.heads.config import HeadConfig
from wsi_lmc.heads.examples import Case
from wsi_lmc.heads.learning import Learned, learn, level_of
from wsi_lmc.heads.maps import Place
from wsi_lmc.heads.model import HeadKind, Model, ModelCard, load_model, mark_names, save_model
from wsi_lmc.heads.predictions import Known, Split, Writing, write_predictions
from wsi_lmc.heads.reporting import (
    SiteScores,
    Thresholds,
    choose_thresholds,
    score_sites,
    thresholds_without,
    write_scores,
)
from wsi_lmc.heads.scoring import Naming
from wsi_lmc.provenance import to_json
from wsi_lmc.publish import prepare_output

MODEL = "model"


@dataclass(frozen=True)
class Task:
    """Which head, trained on which site; ``maps`` False leaves GeoJSON and pictures out."""

    source: str
    head: HeadKind
    config: HeadConfig
    maps: bool = True


@dataclass(frozen=True)
class Hearers:
    """Who is told of a stage's beginning or a seed's result, and of each slide that is predicted."""

    line: Callable[[str], None]
    slide: Callable[[str], None]


def classify(selection: Selection, task: Task, out: Path, hearers: Hearers) -> list[SiteScores]:
    """Train on the source, predict every slide, score every site; writes everything below ``out``.

    Raises:
        UsageError: features of several encoders, no such source, or too few labels there.
        TrainingError: a loss is no number.
    """
    found = find_slides(selection)
    source = [slide for slide in found if slide.entry.site == task.source]
    if not source:
        sites = ", ".join(sorted({slide.entry.site or "(none)" for slide in found}))
        raise UsageError(f"no slide of site {task.source!r}; sites: {sites}", "one of them", "Check --source.")
    level = level_of(task.head)
    classes = selection.classes or class_names(source, level)
    cohort = load_cohort(found, classes)
    prepare_output(out)
    own = [case for case in cohort.cases if case.site == task.source]
    hearers.line(f"training {task.head} on {len(own)} slides of {task.source}: {' or '.join(classes)}")
    learned = learn(own, task.head, classes, task.config, hearers.line)
    split: list[tuple[Case, Split, Place]] = [
        (case, _split(case, task.source, learned), cohort.places[case.slide_id]) for case in cohort.cases
    ]
    hearers.line(f"predicting {len(split)} slides")
    writing = Writing(out, level, classes, mark_names(task.head, classes), task.maps)
    known = write_predictions(split, learned.predict, writing, hearers.slide)
    thresholds, sites = _score(known, learned, Naming(classes, learned.majority), level)
    card = _card(task, cohort, learned, classes)
    card = replace(card, source_scores=tuple(asdict(site) for site in sites if site.split == "source, out of fold"))
    if len(classes) == 2:
        card = replace(card, threshold=thresholds.averaged, seed_thresholds=thresholds.by_seed)
    save_model(out, out / MODEL, Model(card, learned.heads))
    write_scores(out, sites, _about(card, cohort, {"chosen": learned.trained_on["chosen"]}))
    return sites


def apply(selection: Selection, folder: Path, out: Path, how: tuple[str, bool], hearers: Hearers) -> list[SiteScores]:
    """Predict slides with a model that :func:`classify` wrote; scores where there are labels.

    ``how`` is the device, and whether maps are made. Slides of the site that the model was trained at are told apart:
    it may know them.

    Raises:
        UsageError: features of another encoder, or other classes.
        StoreError: there is no whole model.
    """
    model = load_model(folder, how[0])
    card = model.card
    if selection.classes and selection.classes != card.classes:
        raise UsageError(
            f"classes {', '.join(selection.classes)}", f"{', '.join(card.classes)}, as in training", "Drop --classes."
        )
    cohort = load_cohort(find_slides(selection), card.classes)
    if _known_by(cohort.encoder) != _known_by(card.encoder):
        given, wanted = (f"{each['name']} ({str(each['sha256'])[:16]})" for each in (cohort.encoder, card.encoder))
        raise UsageError(f"features of {given}", wanted, "Embed the slides with the encoder of the model.")
    prepare_output(out)
    hearers.line(f"predicting {len(cohort.cases)} slides with {card.head} of {card.source}")
    split: list[tuple[Case, Split, Place]] = [
        (case, "site of training" if case.site == card.source else "target", cohort.places[case.slide_id])
        for case in cohort.cases
    ]
    writing = Writing(out, card.level, card.classes, model.mark_names, how[1])
    known = write_predictions(split, lambda _, features: model.predict(features), writing, hearers.slide)
    limits = Thresholds(_or_half(card.threshold), card.seed_thresholds or (0.5,) * len(model.heads))
    sites = score_sites(known, [limits] * len(known), Naming(card.classes, card.majority), card.level)
    write_scores(out, sites, _about(card, cohort, {}))
    return sites


def _known_by(encoder: Mapping[str, Any]) -> object:
    """What tells an encoder from others: its SHA-256, or of imported features, of which nobody knows it, its name."""
    return encoder["sha256"] or ("name", encoder["name"])


def _split(case: Case, source: str, learned: Learned) -> Split:
    """What a slide is; a patient of the source stays out of the scores at a target, too."""
    if case.site == source:
        return "source, out of fold" if learned.knows(case) else "source, not learnt from"
    return "target, patient of the source" if learned.knows(case) else "target"


def _score(known: Sequence[Known], learned: Learned, naming: Naming, unit: str) -> tuple[Thresholds, list[SiteScores]]:
    """The source's thresholds, and the scores; at the source a slide's threshold is what the other folds give."""
    out_of_fold = [each for each in known if each.split == "source, out of fold"]
    others = [each for each in known if each.split == "target"]
    thresholds = choose_thresholds(out_of_fold)
    fold_of = learned.fold_of[0]
    by_fold = thresholds_without(out_of_fold, fold_of)
    limits = [*(by_fold[fold_of[each.case.group]] for each in out_of_fold), *(thresholds for _ in others)]
    return thresholds, score_sites([*out_of_fold, *others], limits, naming, unit)


def _card(task: Task, cohort: Cohort, learned: Learned, classes: tuple[str, ...]) -> ModelCard:
    return ModelCard(
        level=level_of(task.head),
        head=task.head,
        classes=classes,
        encoder={name: cohort.encoder[name] for name in ("name", "sha256", "architecture", "normalised")},
        tile_mpp=cohort.tile_mpp,
        source=task.source,
        majority=learned.majority,
        trained_on=learned.trained_on,
        settings=_settings(task.config),
    )


def _settings(config: HeadConfig) -> Mapping[str, Any]:
    found = to_json(config)
    return found if isinstance(found, dict) else {}


def _about(card: ModelCard, cohort: Cohort, more: Mapping[str, Any]) -> dict[str, Any]:
    stated = asdict(card)
    shown = ("level", "head", "classes", "source", "encoder", "threshold", "trained_on", "settings")
    return {name: stated[name] for name in shown} | {"normalised_by_site": cohort.normalised} | dict(more)


def _or_half(threshold: float | None) -> float:
    return 0.5 if threshold is None else threshold
