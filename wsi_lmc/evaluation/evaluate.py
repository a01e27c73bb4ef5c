"""The whole evaluation of several encoders on the same tiles: each metric on a sample whose size is named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from jaxtyping import Float, Int64

from wsi_lmc.errors import UsageError
from wsi_lmc.evaluation.baselines import Baseline, baseline_set
from wsi_lmc.evaluation.distances import distances, transport
from wsi_lmc.evaluation.gains import Drawn, gains
from wsi_lmc.evaluation.measures import Curve, EncoderResult, Evaluation, LeftOut, Measure
from wsi_lmc.evaluation.neighbours import class_separation, mixing, robustness_index
from wsi_lmc.evaluation.retrieval import pair_retrieval
from wsi_lmc.evaluation.samples import Sample, common_tiles, equal_cells, equal_sites, gather, thin
from wsi_lmc.evaluation.scores import FeatureSet
from wsi_lmc.evaluation.silhouettes import class_clusters, site_overlap
from wsi_lmc.evaluation.siteprobe import site_probe
from wsi_lmc.evaluation.transfer import METRICS as TRANSFER_METRICS
from wsi_lmc.evaluation.transfer import transfers

_FEWEST = 10  # tiles a site (or class at a site) below which a metric is left out
_FEWEST_NEIGHBOURS = 6


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings; sizes are tiles a site, of which metrics draw equally many at every site.

    Classes are learnt at ``source``, or at each site in turn where it is empty. Slides in ``seen`` (by the encoder, in
    training) count in the transfer and in pairs alone. ``k`` is how many neighbours count. Distances are resampled less
    often than the rest, since each takes covariances anew.
    """

    by: str = "site"
    source: str = ""
    k: int = 50
    seed: int = 0
    tiles_per_site: int = 5000
    probe_tiles: int = 2000
    distance_tiles: int = 2000
    neighbour_tiles: int = 1500
    silhouette_tiles: int = 800
    transport_tiles: int = 400
    resamples: int = 1000
    distance_resamples: int = 100
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairFeatures:
    """Features of the same tissue in two scans, row by row, and each pair's group."""

    first: Float[np.ndarray, "n d"]
    second: Float[np.ndarray, "n d"]
    group: Int64[np.ndarray, " n"]


@dataclass
class _Found:
    """What has been measured so far of one encoder."""

    measures: list[Measure]
    left_out: list[LeftOut]
    curves: list[Curve]
    drawn: Drawn = field(default_factory=dict)


def prepare(
    sets: Sequence[FeatureSet], config: EvaluateConfig, baselines: Sequence[Baseline] = ()
) -> tuple[list[FeatureSet], int]:
    """The tiles that are measured: those that all sets have, at most so many a site; then baselines of these tiles.

    Also says how many tiles were left out because not every set has them.

    Raises:
        UsageError: no tile is in all sets, or a baseline's tiles are not there.
    """
    common, dropped = common_tiles(sets)
    thinned = [thin(one, config.tiles_per_site, config.seed) for one in common]
    return [*[baseline_set(thinned[0], kind) for kind in baselines], *thinned], dropped


def evaluate(
    sets: Sequence[FeatureSet],
    config: EvaluateConfig,
    pairs: Mapping[str, PairFeatures] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure each set, as :func:`prepare` gives them; ``pairs`` by name of set; ``say`` hears what is being done.

    Raises:
        UsageError: not two sites, a slide without one, or ``source`` is none of them.
    """
    sites = _sites(sets, config)
    seen = len({slide.slide_id for one in sets for slide in one.slides} & set(config.seen))
    found = [_evaluate_one(one, config, (pairs or {}).get(one.name), say) for one in sets]
    return Evaluation(
        *(config.by, sites, tuple(sets[0].classes), asdict(config) | {"seen": seen}),
        tuple(result for result, _ in found),
        gains([(result.name, drawn) for result, drawn in found], TRANSFER_METRICS),
    )


def _sites(sets: Sequence[FeatureSet], config: EvaluateConfig) -> tuple[str, ...]:
    sites = tuple(sorted({slide.site for one in sets for slide in one.slides}))
    if len(sites) < 2:
        raise UsageError(
            f"slides of {f'one {config.by}, {sites[0]}' if sites and sites[0] else f'no named {config.by}'}",
            "two sites at least",
            f"Add slides, or give --manifest with a column {config.by}.",
        )
    if "" in sites:
        unnamed = sorted({slide.slide_id for one in sets for slide in one.slides if not slide.site})
        raise UsageError(
            f"{len(unnamed)} slides without a {config.by}, {unnamed[0]} first",
            f"a {config.by} for each slide",
            f"Give --manifest with a column {config.by}.",
        )
    if config.source and config.source not in sites:
        raise UsageError(f"no {config.by} {config.source}", f"one of {', '.join(sites)}", "Check --source.")
    return sites


def _evaluate_one(
    one: FeatureSet, config: EvaluateConfig, pairs: PairFeatures | None, say: Callable[[str], None]
) -> tuple[EncoderResult, Drawn]:
    say(f"measuring {one.name}")
    found = _Found([], [], [])
    whole = gather(one.slides, one.classes, one.tiles)
    unseen = [slide for slide in one.slides if slide.slide_id not in config.seen]
    fresh = whole if len(unseen) == len(one.slides) else gather(unseen, one.classes, one.tiles) if unseen else None
    if fresh is None or len(fresh.sites) < 2 or np.bincount(fresh.site).min() < _FEWEST:
        found.left_out.append(
            LeftOut("w2_relative", f"fewer than {_FEWEST} tiles at a site that the encoder has not seen")
        )
    else:
        _batch_effect(fresh, config, found)
        _tissue(fresh, config, found)
    _transfer(whole, config, found)
    if pairs is not None:
        how = (config.resamples, config.seed)
        k = max(1, min(config.k, len(pairs.group) // 10))
        found.measures.extend(pair_retrieval(pairs.first, pairs.second, pairs.group, k, how))
    result = EncoderResult(
        *(one.name, whole.features.shape[1], len(whole), one.tiles, len(one.slides), whole.groups),
        *(tuple(found.measures), tuple(found.left_out), tuple(found.curves)),
    )
    return result, found.drawn


def _batch_effect(sample: Sample, config: EvaluateConfig, found: _Found) -> None:
    """Metrics of the sites alone."""
    seed = config.seed
    found.measures += distances(equal_sites(sample, config.distance_tiles, seed), config.distance_resamples, seed)
    found.measures += transport(equal_sites(sample, config.distance_tiles, seed), config.transport_tiles, seed)
    probed, left_out = site_probe(equal_sites(sample, config.probe_tiles, seed), config.resamples, seed)
    found.measures.extend(probed)
    found.left_out.extend(left_out)
    near = equal_sites(sample, config.neighbour_tiles, seed)
    k = min(config.k, int(np.bincount(near.site).min()))
    if k < _FEWEST_NEIGHBOURS:
        found.left_out += [LeftOut(name, f"{k} neighbours are too few") for name in ("kbet", "ilisi")]
    else:
        found.measures += mixing(near, k, config.resamples, seed)
    few = equal_sites(sample, config.silhouette_tiles, seed)
    found.measures.append(site_overlap(few, config.resamples, seed))


def _tissue(sample: Sample, config: EvaluateConfig, found: _Found) -> None:
    """Metrics of the classes, and of classes against sites."""
    names = ("robustness_index", "clisi", "silhouette_label")
    balanced = equal_cells(sample, config.neighbour_tiles, config.seed)
    kinds = len(np.unique(balanced.label))
    smallest = len(balanced) // (kinds * len(balanced.sites)) if kinds else 0
    if kinds < 2 or smallest < _FEWEST or len(np.unique(balanced.site)) < len(sample.sites):
        reason = f"no two classes of {_FEWEST} tiles each at every site"
        found.left_out += [LeftOut(name, reason) for name in names]
        return
    k = min(config.k, smallest)
    if balanced.groups > 1:
        found.measures.append(robustness_index(balanced, k, config.resamples, config.seed))
    else:
        found.left_out.append(LeftOut("robustness_index", "one group only: no neighbours in other groups"))
    found.measures.append(class_separation(balanced, k, config.resamples, config.seed))
    few = equal_cells(sample, config.silhouette_tiles, config.seed)
    found.measures.append(class_clusters(few, config.resamples, config.seed))


def _transfer(sample: Sample, config: EvaluateConfig, found: _Found) -> None:
    labelled = sample.rows(sample.label >= 0)
    if len(np.unique(labelled.label)) < 2:
        found.left_out.append(LeftOut("transfer_auroc", "no labels of two classes"))
        return
    result = transfers(labelled, config.source, config.resamples, config.seed)
    found.measures.extend(result.measures)
    found.curves.extend(result.curves)
    found.left_out.extend(result.left_out)
    found.drawn = result.drawn
