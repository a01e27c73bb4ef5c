"""Scores of an experiment: by site, at thresholds of the source, as JSON, as a table and as a few lines of text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float64

from wsi_lmc.heads.examples import group_numbers
from wsi_lmc.heads.model import without_nan
from wsi_lmc.heads.predictions import Known, Split
from wsi_lmc.heads.scoring import HeadScore, Naming, Results, best_threshold, score
from wsi_lmc.provenance import created_by
from wsi_lmc.publish import publish_text
from wsi_lmc.spreadsheets import to_csv

SCHEMA, SCHEMA_VERSION = "wsi-lmc/classification", 1
SCORES_JSON, SCORES_CSV = "scores.json", "scores.csv"
NOTES = {
    "interval": "95 % percentile bootstrap, 1000 resamples of patients (of examples where a site has one patient)",
    "value": "of the probabilities averaged over the seeds; seed_mean and seed_sd are of single seeds",
    "calls": "the most probable class, but for the F1 of two classes, whose threshold is the source's",
    "source": "out of fold: by models that neither saw the patient nor were chosen by them; F1 at a threshold that the "
    "other folds gave",
    "baseline": "what the trivial answer named beside it would score",
}


@dataclass(frozen=True)
class Thresholds:
    """Of the last class's probability, where there are two classes: of the averaged one, and of each seed's."""

    averaged: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class SiteScores:
    """Scores at one site; ``slides`` and ``patients`` are those with a label, ``unit`` is what was scored."""

    site: str
    split: Split
    examples: int
    unit: str
    slides: int
    patients: int
    scores: tuple[HeadScore, ...]


def choose_thresholds(source: Sequence[Known]) -> Thresholds:
    """Thresholds of best F1 on the source's out-of-fold probabilities (0.5 where nothing of it is known)."""
    if not source:
        return Thresholds(0.5, ())
    truth, by_seed = _stack(source)
    own = tuple(best_threshold(truth, probabilities[:, -1]) for probabilities in by_seed)
    return Thresholds(best_threshold(truth, by_seed.mean(axis=0)[:, -1]), own)


def thresholds_without(source: Sequence[Known], fold_of: Mapping[str, int]) -> dict[int, Thresholds]:
    """For each fold, the thresholds that the other folds give."""
    return {
        fold: choose_thresholds([known for known in source if fold_of[known.case.group] != fold])
        for fold in set(fold_of.values())
    }


def score_sites(
    known: Sequence[Known], thresholds: Sequence[Thresholds], naming: Naming, unit: str
) -> list[SiteScores]:
    """Score every site and split apart; ``thresholds`` are those of each slide. Sites are in order of their names."""
    found: list[SiteScores] = []
    for split, site in dict.fromkeys(sorted((each.split, each.case.site) for each in known)):
        pairs = [
            pair for pair in zip(known, thresholds, strict=True) if (pair[0].split, pair[0].case.site) == (split, site)
        ]
        own = [each for each, _ in pairs]
        truth, by_seed = _stack(own)
        sizes = [len(each.truth) for each in own]
        groups = np.repeat(group_numbers([each.case for each in own]), sizes)
        limits = np.repeat([limit.averaged for _, limit in pairs], sizes)
        single = [
            Results(truth, probabilities, groups, np.repeat([limit.by_seed[seed] for _, limit in pairs], sizes))
            for seed, probabilities in enumerate(by_seed)
        ]
        scores = score(Results(truth, by_seed.mean(axis=0), groups, limits), single, naming, seed=0)
        patients = len({each.case.group for each in own})
        found.append(SiteScores(site, cast(Split, split), len(truth), unit, len(own), patients, tuple(scores)))
    return found


def write_scores(out: Path, sites: Sequence[SiteScores], about: Mapping[str, Any]) -> None:
    """Publish ``scores.json`` and ``scores.csv``."""
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created_by": created_by(),
        **about,
        "how_to_read": NOTES,
        "sites": [asdict(site) for site in sites],
    }
    publish_text(out, out / SCORES_JSON, json.dumps(without_nan(document), indent=1) + "\n")
    columns = ("site", "split", "metric", "value", "low", "high", "baseline", "baseline_is", "interval_over",
               "seed_mean", "seed_sd", "unit", "examples", "slides", "patients")  # fmt: skip
    rows = [
        (site.site, site.split, each.metric, *map(_number, (each.value, each.low, each.high, each.baseline)),
         each.baseline_is, each.interval_over, _number(each.seed_mean), _number(each.seed_sd),
         site.unit, site.examples, site.slides, site.patients)
        for site in sites for each in site.scores
    ]  # fmt: skip
    publish_text(out, out / SCORES_CSV, to_csv(columns, rows))


def scores_text(sites: Sequence[SiteScores]) -> str:
    """The scores as lines for a terminal."""
    lines: list[str] = []
    for site in sites:
        counted = f"{site.examples} {site.unit}s, {site.patients} patient{'s' * (site.patients != 1)}"
        lines.append(f"{site.site or 'no site named'} ({site.split}; {counted})")
        for each in site.scores:
            interval = f"[{_text(each.low)}, {_text(each.high)}]"
            spread = "" if np.isnan(each.seed_sd) else f"  seeds {_text(each.seed_mean)} ± {each.seed_sd:.3f}"
            lines.append(
                f"  {each.metric:<24} {_text(each.value)} {interval:<16} "
                f"{each.baseline_is} {_text(each.baseline)}{spread}"
            )
    return "\n".join(lines)


def _stack(known: Sequence[Known]) -> tuple[np.ndarray, Float64[np.ndarray, "seeds n k"]]:
    return np.concatenate([each.truth for each in known]), np.concatenate([each.by_seed for each in known], axis=1)


def _number(value: float) -> str | None:
    return f"{value:.4f}" if np.isfinite(value) else None


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
