"""The whole of a study: features of every row and seed, their scores, table and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation import FeatureSet, SlideFeatures
from wsi_lmc.evaluation.embedding import planes_of, plot_embeddings
from wsi_lmc.publish import publishing
from wsi_lmc.study.config import Study, StudyConfig
from wsi_lmc.study.features import SOURCE, Workshop
from wsi_lmc.study.pictures import plot_curves, plot_rows
from wsi_lmc.study.run import features_path, make_features, open_workshop, read_features, seeds_of
from wsi_lmc.study.scoring import BLIND, Marking, Predicted, RowScore, score_rows
from wsi_lmc.study.tables import write_results

REFERENCE = "lmc"
"""The row that the others are held against."""

_IN_THE_PLANE = ("colour", "untrained", "geometry-macenko-target", "lmc")

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyResult:
    """What a study came to: scores of its rows, what each row and seed predicts, what it is of, the files written."""

    rows: list[RowScore]
    predicted: Mapping[str, Sequence[Predicted]]
    classes: tuple[str, ...]
    stated: Mapping[str, object]
    files: tuple[Path, ...]


def run_study(study: Study, config: StudyConfig, out: Path, say: Say) -> StudyResult:
    """Make and compare every row of a study in the folder ``out``; what is there already is not made again.

    Writes ``results.json``, ``scores.csv``, ``table.md``, ``scores.png``, ``embedding.png`` and, of two classes,
    ``roc.png``. Several processes may run the same study; the scores are made by the last one.

    Raises:
        UsageError: data or settings that do not fit, or rows that another process is still making.
        TrainingError: a training had to stop; the same call goes on from there.
    """
    workshop = open_workshop(study, config, out)
    if not make_features(workshop, say):
        raise UsageError(
            "rows that another process is making", "all rows", "Run the same command again once that one has ended."
        )
    say("scoring")
    marking = Marking(workshop.sites, study.classes, head=config.head)
    predicted = {
        row: [marking.mark(read_features(features_path(out, row, seed)), seed) for seed in range(seeds_of(row, config))]
        for row in config.rows
    }
    everything = {**predicted, BLIND: [marking.blind()]}
    rows = score_rows(everything, REFERENCE, study.classes)
    stated = _stated(workshop)
    files = list(write_results(out, rows, REFERENCE, stated))
    files.append(out / "scores.png")
    with publishing(out, files[-1]) as draft:
        plot_rows(rows, REFERENCE, draft)
    if len(study.classes) == 2:
        files.append(out / "roc.png")
        with publishing(out, files[-1]) as draft:
            plot_curves(_curves(marking, predicted), draft)
    shown = [row for row in _IN_THE_PLANE if row in predicted] or list(predicted)[:1]
    files.append(out / "embedding.png")
    with publishing(out, files[-1]) as draft:
        plot_embeddings(planes_of([_in_the_plane(workshop, row) for row in shown]), draft)
    return StudyResult(rows, everything, study.classes, stated, tuple(files))


def compare_all(results: Mapping[str, StudyResult], out: Path) -> list[RowScore]:
    """Scores over studies of several sources with the same rows: every source-target pair beside the mean of them all.

    Writes the same files as one study does, without ROC curves and features in the plane.
    """
    rows: dict[str, list[Predicted]] = {}
    for row in next(iter(results.values())).predicted:
        by_source = {source: result.predicted[row] for source, result in results.items()}
        rows[row] = [_joined({source: found[seed] for source, found in by_source.items()})
                     for seed in range(min(map(len, by_source.values())))]  # fmt: skip
    scores = score_rows(rows, REFERENCE, next(iter(results.values())).classes)
    stated = {"sources": {source: result.stated for source, result in results.items()}}
    write_results(out, scores, REFERENCE, stated)
    with publishing(out, out / "scores.png") as draft:
        plot_rows(scores, REFERENCE, draft)
    return scores


def _joined(by_source: Mapping[str, Predicted]) -> Predicted:
    """One seed's scores over all sources, named by source and target."""
    within = [each.within for each in by_source.values() if each.within is not None]
    site = [each.site for each in by_source.values() if each.site is not None]
    return Predicted(
        {},
        {f"{source} > {name}": drawn for source, each in by_source.items() for name, drawn in each.scores.items()},
        float(np.mean(within)) if within else None,
        float(np.mean(site)) if site else None,
        float(np.mean([each.rank for each in by_source.values()])),
    )


def _in_the_plane(workshop: Workshop, row: str) -> FeatureSet:
    """The first seed's features of a row's tiles, a site standing for one slide."""
    features = read_features(features_path(workshop.out, row, 0))
    slides = [SlideFeatures(site, site, site, features[site], tiles.labels) for site, tiles in workshop.sites.items()]
    return FeatureSet(row, tuple(slides), workshop.study.classes, sum(map(len, workshop.sites.values())))


def _curves(
    marking: Marking, predicted: Mapping[str, Sequence[Predicted]]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Truth and the seeds' mean score of each target's tiles, by target and row."""
    return {
        target: {
            row: (marking.sites[target].labels == 1, np.mean([each.chances[target][:, 1] for each in found], axis=0))
            for row, found in predicted.items()
        }
        for target in marking.targets
    }


def _stated(workshop: Workshop) -> dict[str, object]:
    """What was compared on which data; no paths."""
    study, config = workshop.study, workshop.config
    sites = {
        name: {
            "tiles": len(tiles),
            "patients": len(set(tiles.groups)),
            "by class": dict(zip(study.classes, np.bincount(tiles.labels, minlength=len(study.classes)).tolist(),
                                 strict=True)),
        }
        for name, tiles in workshop.sites.items()
    }  # fmt: skip
    settings = {
        name: getattr(config, name)
        for name in ("seeds", "steps", "batch", "architecture", "lr", "precision", "crop", "head")
    }
    trained = "the source's own" if study.unlabelled == study.source else "another set of the source's"
    return {
        "classes": list(study.classes),
        "sites": sites,
        "settings": settings,
        "unlabelled tiles": trained,
        "left out": list(config.left_out),
        "source": SOURCE,
    }
