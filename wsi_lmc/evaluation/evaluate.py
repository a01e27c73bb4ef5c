"""The whole first evaluation: probes on several sets of features of the same tiles, their tables and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wsi_lmc.evaluation.pictures import plot_embeddings, plot_scores
from wsi_lmc.evaluation.probes import class_probe, site_probe
from wsi_lmc.evaluation.scores import Score, SlideFeatures
from wsi_lmc.provenance import created_by
from wsi_lmc.publish import prepare_output, publish_text, publishing
from wsi_lmc.spreadsheets import to_csv

FeatureSets = Mapping[str, Sequence[SlideFeatures]]


@dataclass(frozen=True)
class Roles:
    """Which site was trained on, and which slides an encoder has seen (left out of the site probe)."""

    source_site: str
    seen: frozenset[str]


@dataclass(frozen=True)
class Evaluation:
    """Scores by set of features, and the files written."""

    scores: dict[str, list[Score]]
    files: tuple[Path, ...]


def evaluate(sets: FeatureSets, roles: Roles, out: Path, seed: int = 0) -> Evaluation:
    """Probe each set of features and write ``scores.json``, ``scores.csv``, ``scores.png`` and ``embedding.png``.

    The site probe takes slides no encoder has seen. The class probe, where tiles have labels, is trained on the source
    site (labels of slides an encoder has seen may be used: it saw no labels) and tested on the other.

    Raises:
        UsageError: too few slides or sites.
    """
    prepare_output(out)
    scores = {name: _probe(slides, roles, seed) for name, slides in sets.items()}
    document = {
        "schema": "wsi-lmc/evaluation",
        "schema_version": 1,
        "created_by": created_by(),
        "seed": seed,
        "source_site": roles.source_site,
        "interval": "95 % percentile bootstrap, 1000 resamples of slides within sites",
        "site": "logistic regression, out-of-fold by patient, on slides no encoder has seen; 0.5 = site invisible",
        "class": "logistic regression trained on the source site, regularisation chosen there, tested on the other",
        "scores": {name: [asdict(score) for score in found] for name, found in scores.items()},
    }
    files = [out / name for name in ("scores.json", "scores.csv", "scores.png", "embedding.png")]
    publish_text(out, files[0], json.dumps(document, indent=1) + "\n")
    publish_text(out, files[1], _table(scores))
    with publishing(out, files[2]) as draft:
        plot_scores(scores, draft)
    unseen = {name: [slide for slide in slides if slide.slide_id not in roles.seen] for name, slides in sets.items()}
    with publishing(out, files[3]) as draft:
        plot_embeddings(unseen, draft)
    return Evaluation(scores, tuple(files))


def report_text(evaluation: Evaluation) -> str:
    """The scores as a small table for a terminal."""
    shown = ("site balanced accuracy", "class AUROC within source", "class AUROC")
    lines = ["", f"{'features':<12} {'site told (0.5 = never)':<26} {'class, same site':<22} {'class, other site':<22}"]
    for name, scores in evaluation.scores.items():
        by_metric = {score.metric: score for score in scores}
        cells = [_cell(by_metric[metric]) if metric in by_metric else "-" for metric in shown]
        lines.append(f"{name:<12} {cells[0]:<26} {cells[1]:<22} {cells[2]:<22}")
    return "\n".join(lines)


def _probe(slides: Sequence[SlideFeatures], roles: Roles, seed: int) -> list[Score]:
    scores = site_probe([slide for slide in slides if slide.slide_id not in roles.seen], seed)
    source = [slide for slide in slides if slide.site == roles.source_site]
    target = [slide for slide in slides if slide.site != roles.source_site]
    if any((slide.labels >= 0).any() for slide in slides):
        scores += class_probe(source, target, seed)
    return scores


def _cell(score: Score) -> str:
    return f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"


def _table(scores: Mapping[str, Sequence[Score]]) -> str:
    columns = ("features", "metric", "value", "low", "high", "chance", "tiles", "slides")
    rows: list[tuple[object, ...]] = []
    for name, found in scores.items():
        for score in found:
            values = [f"{value:.4f}" for value in (score.value, score.low, score.high, score.chance)]
            rows.append((name, score.metric, *values, score.tiles, score.slides))
    return to_csv(columns, rows)
