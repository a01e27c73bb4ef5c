"""The same tissue scanned twice: is it found again among the tiles of the other scan?

Cosine alone rewards an encoder that maps everything onto one point, so retrieval stands beside it.
"""

import numpy as np
from jaxtyping import Float, Int64

from wsi_lmc.evaluation.measures import Measure
from wsi_lmc.evaluation.neighbours import unit_length
from wsi_lmc.evaluation.resampling import interval, lonely_note, units_of

_ROWS = 1024


def pair_ranks(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "n d"]
) -> tuple[Int64[np.ndarray, " n"], Float[np.ndarray, " n"], float]:
    """How many tiles of the second scan are at least as near as each tile's partner, its cosine, and that of others."""
    a, b = unit_length(first), unit_length(second)
    ranks, own, total = np.zeros(len(a), np.int64), (a * b).sum(axis=1), 0.0
    for start in range(0, len(a), _ROWS):
        here = slice(start, start + _ROWS)
        cosine = a[here] @ b.T
        rows = np.arange(len(cosine))
        partner = cosine[rows, rows + start].copy()
        total += float(cosine.sum() - partner.sum())
        cosine[rows, rows + start] = -np.inf
        ranks[here] = (cosine >= partner[:, None]).sum(axis=1)
    return ranks, own, total / max(1, len(a) * (len(a) - 1))


def pair_retrieval(
    first: Float[np.ndarray, "n d"],
    second: Float[np.ndarray, "n d"],
    group: Int64[np.ndarray, " n"],
    k: int,
    how: tuple[int, int],
) -> list[Measure]:
    """Top-1, top-``k`` and cosine of pairs of tiles (row by row), both ways; ``how`` is resamples and seed.

    Ties count against the encoder: one that maps everything onto one point finds nothing.
    """
    count = len(first)
    forth, cosine, others = pair_ranks(first, second)
    back = pair_ranks(second, first)[0]
    per_pair = np.stack(
        [((forth < 1) + 1.0 * (back < 1)) / 2, ((forth < k) + 1.0 * (back < k)) / 2, cosine.astype(np.float64)]
    )
    units = units_of(group, np.zeros(count, np.int64), ("the pairs",))
    resamples, seed = how
    pieces = list(units.weights(resamples, np.random.default_rng((seed, 13))))
    drawn = np.concatenate([per_pair @ piece.T / piece.sum(axis=1) for piece in pieces], axis=1)
    chances = (1 / count, min(1.0, k / count), others)
    notes = ("", f"k = {k}.", f"Other tiles' cosine {others:.3f}.")
    return [
        Measure(
            *(name, float(per_pair[row].mean()), *interval(drawn[row]), count, count, len(np.unique(group))),
            *(None, chances[row], (), units.over, f"{notes[row]} {lonely_note(units)}".strip()),
        )
        for row, name in enumerate(("pair_top1", "pair_topk", "pair_cosine"))
    ]
