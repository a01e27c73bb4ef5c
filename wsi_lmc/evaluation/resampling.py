"""What is drawn anew for an interval: whole groups (patients), never tiles, wherever a site has more than one group.

Tiles of one patient resemble each other: drawn one by one they would make intervals that are far too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

_AT_ONCE = 5_000_000  # weights of tiles that are held at a time


@dataclass(frozen=True)
class Units:
    """What is drawn anew: the unit of each tile, the stratum of each unit, and in words what units are."""

    of_tile: Int64[np.ndarray, " n"]
    stratum: Int64[np.ndarray, " u"]
    over: str

    def draws(self, resamples: int, rng: np.random.Generator) -> Int64[np.ndarray, "r u"]:
        """How often each unit is drawn in each resample, as many as there are within each stratum."""
        counts = np.zeros((resamples, len(self.stratum)), np.int64)
        for stratum in np.unique(self.stratum):
            members = np.nonzero(self.stratum == stratum)[0]
            counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
        return counts

    def weights(self, resamples: int, rng: np.random.Generator) -> Iterator[Float64[np.ndarray, "_ n"]]:
        """The same as weights of tiles, in pieces that fit into memory."""
        counts = self.draws(resamples, rng)
        piece = max(1, _AT_ONCE // max(1, len(self.of_tile)))
        for start in range(0, resamples, piece):
            yield counts[start : start + piece][:, self.of_tile].astype(np.float64)


def units_of(group: Int64[np.ndarray, " n"], site: Int64[np.ndarray, " n"], sites: tuple[str, ...]) -> Units:
    """Groups as units, drawn within sites; the tiles of a site that has one group only are units of their own.

    A group that is at several sites (tissue scanned twice) is one unit; then all units make one stratum.
    """
    found = np.unique(site)
    lonely = [number for number in found if len(np.unique(group[site == number])) == 1]
    alone = np.isin(site, lonely)
    own = np.where(alone, group.max(initial=0) + 1 + np.arange(len(group)), group)
    names, first, of_tile = np.unique(own, return_index=True, return_inverse=True)
    pairs = np.unique(np.stack([own, site]), axis=1)
    nested = pairs.shape[1] == len(names)
    stratum = site[first] if nested else np.zeros(len(names), np.int64)
    if not lonely:
        over = "groups"
    elif len(lonely) == len(found):
        over = "tiles"
    else:
        over = f"groups (tiles at {', '.join(sites[number] for number in lonely)})"
    return Units(of_tile.astype(np.int64), stratum.astype(np.int64), over)


def lonely_note(units: Units) -> str:
    """A warning where an interval is over tiles, or nothing."""
    if "tiles" not in units.over:
        return ""
    return "Where a site has one group only, tiles stand for groups: its interval is too narrow, its floor too low."


def interval(drawn: Float[np.ndarray, " r"]) -> tuple[float | None, float | None]:
    """The middle 95 % of what was drawn, or nothing where nothing could be computed."""
    values = drawn[np.isfinite(drawn)]
    if not len(values):
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def centred_interval(drawn: Float[np.ndarray, " r"], value: float) -> tuple[float | None, float | None]:
    """The same about ``value``: for distances, which a resample makes larger by having fewer different tiles."""
    low, high = interval(drawn - np.nanmean(drawn)) if np.isfinite(drawn).any() else (None, None)
    if low is None or high is None:
        return None, None
    return max(0.0, value + low), value + high


def halves(
    group: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Rows of two random halves of a site's groups, about equally many tiles each; of tiles, if it has one group."""
    names = np.unique(group)
    if len(names) == 1:
        order = rng.permutation(len(group))
        return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    rng.shuffle(names)
    sizes = np.asarray([(group == name).sum() for name in names])
    first: list[int] = []
    filled = [0, 0]
    for place in np.argsort(-sizes, kind="stable"):  # the largest first, each to the emptier half
        side = int(filled[1] < filled[0]) if filled[0] != filled[1] else int(rng.integers(2))
        filled[side] += int(sizes[place])
        if side == 0:
            first.append(int(names[place]))
    inside = np.isin(group, first)
    return np.nonzero(inside)[0], np.nonzero(~inside)[0]


def pretended_sites(
    group: Int64[np.ndarray, " n"], site: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> Int64[np.ndarray, " n"] | None:
    """Each tile's site if whole groups had been dealt to sites at random, each site's groups evenly over all.

    None where there are fewer than two groups a site, since then nothing can be dealt.
    """
    count = len(np.unique(site))
    names, first, of_tile = np.unique(group, return_index=True, return_inverse=True)
    if len(names) < 2 * count:
        return None
    dealt = np.zeros(len(names), np.int64)
    offset = 0
    for own in np.unique(site):
        members = rng.permutation(np.nonzero(site[first] == own)[0])
        dealt[members] = (np.arange(len(members)) + offset) % count
        offset += len(members)
    return rng.permutation(count)[dealt][of_tile].astype(np.int64)
