"""Is one encoder better than another? Differences of their transfers, groups of the target drawn alike for both.

Both encoders meet the same tiles, so that what makes a target hard cancels out: the interval of the difference is
narrower than two intervals side by side let expect, and it alone answers the question.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float64
from numpy import ndarray

from wsi_lmc.evaluation.measures import Gain
from wsi_lmc.evaluation.resampling import interval

Drawn = Mapping[tuple[str, ...], Float64[ndarray, "_ _"]]
"""By transfer (source, target; nobody for the mean of all): a row a metric; first the value, then the resamples'."""


def gains(found: Sequence[tuple[str, Drawn]], metrics: Sequence[str]) -> tuple[Gain, ...]:
    """What the last encoder has over each other one; ``metrics`` names the rows that were drawn."""
    if len(found) < 2:
        return ()
    (reference, own), others = found[-1], found[:-1]
    listed: list[Gain] = []
    for name, theirs in others:
        for between in (each for each in own if each in theirs and own[each].shape == theirs[each].shape):
            difference = own[between] - theirs[between]
            for metric, row in zip(metrics, difference, strict=True):
                listed.append(Gain(metric, reference, name, between, float(row[0]), *interval(row[1:])))
    return tuple(listed)
