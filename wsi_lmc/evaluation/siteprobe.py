"""How well a linear probe tells the site of a tile whose group it has not seen, for any number of sites."""

import numpy as np

from wsi_lmc.evaluation.linear import most_folds, out_of_fold
from wsi_lmc.evaluation.measures import LeftOut, Measure
from wsi_lmc.evaluation.ranking import Ranking, balanced_accuracies, confusion
from wsi_lmc.evaluation.resampling import interval, units_of
from wsi_lmc.evaluation.samples import Sample

_STRENGTH = 0.1
METRICS = ("site_balanced_accuracy", "site_auroc")


def site_probe(sample: Sample, resamples: int, seed: int) -> tuple[list[Measure], list[LeftOut]]:
    """Balanced accuracy and macro one-against-rest AUROC; ``sample`` has equally many tiles a site.

    Groups never stand on both sides of a split, so a site of one group leaves it out.
    """
    if most_folds(sample.site, sample.group) < 2:
        lonely = [
            sample.sites[n] for n in range(len(sample.sites)) if len(np.unique(sample.group[sample.site == n])) < 2
        ]
        reason = f"{', '.join(lonely)}: one group only, where one to train and one to test is needed"
        return [], [LeftOut(metric, reason) for metric in METRICS]
    chances = out_of_fold(_STRENGTH, sample.features, sample.site, sample.group, seed)
    called = chances.argmax(axis=1)
    kinds = len(sample.sites)
    rankings = [Ranking.of(sample.site == kind, chances[:, kind]) for kind in range(kinds)]
    units = units_of(sample.group, sample.site, sample.sites)
    drawn: list[np.ndarray] = []
    for piece in [np.ones((1, len(sample))), *units.weights(resamples, np.random.default_rng((seed, 10)))]:
        accuracy = balanced_accuracies(confusion(sample.site, called, piece, kinds))
        drawn.append(np.stack([accuracy, np.mean([ranking.auroc(piece) for ranking in rankings], axis=0)]))
    value, resampled = drawn[0][:, 0], np.concatenate(drawn[1:], axis=1)
    found = [
        Measure(
            *(METRICS[row], float(value[row]), *interval(resampled[row]), len(sample), sample.of, sample.groups),
            *(None, (1 / kinds, 0.5)[row], (), units.over),
        )
        for row in range(2)
    ]
    return found, []
