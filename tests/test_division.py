"""Shares of a cohort: every slide in exactly one, in whatever order they are listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.division import WHOLE, Shard, parse_shard
from wsi_lmc.errors import UsageError


@given(names=st.sets(st.text(min_size=1, max_size=4), max_size=40), of=st.integers(2, 12), data=st.data())
def test_shares_cover_every_slide_once(names: set[str], of: int, data: st.DataObject) -> None:
    taken: list[str] = []
    for number in range(1, of + 1):
        listed = data.draw(st.permutations(sorted(names)))  # each process lists them as it likes
        share = Shard(number, of).take(listed, str)
        assert len(share) == Shard(number, of).size(len(names))
        taken += share
    assert sorted(taken) == sorted(names)


def test_the_whole_keeps_its_order() -> None:
    assert WHOLE.take(["b", "a"], str) == ["b", "a"]
    assert WHOLE.size(2) == 2
    assert parse_shard(None, {}) == WHOLE


def test_shares_are_counted_from_one() -> None:
    assert parse_shard("1/3", {}) == Shard(1, 3)
    assert Shard(1, 3).take(["c", "d", "a", "b"], str) == ["a", "d"]
    assert Shard(3, 3).take(["c", "d", "a", "b"], str) == ["c"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/5", " 1/3", "", "1.0/3", "Auto"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="i/n with i from 1"):
        parse_shard(text, {})


def _array(indices: list[int], index: int, step: int | None = None) -> dict[str, str]:
    """The environment of a task, as SLURM sets it."""
    values = {"ID": index, "COUNT": len(indices), "MIN": min(indices), "MAX": max(indices)}
    values |= {} if step is None else {"STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(("indices", "step"), [([1, 2, 3], 1), ([0, 1, 2], None), ([10, 14, 18], 4), ([7], 1)])
def test_every_task_of_an_array_has_its_own_share(indices: list[int], step: int | None) -> None:
    found = [parse_shard("auto", _array(indices, index, step)) for index in indices]
    assert found == [Shard(number, len(indices)) for number in range(1, len(indices) + 1)]


def test_no_array_or_one_with_gaps_is_refused() -> None:
    with pytest.raises(UsageError, match="outside an array job"):
        parse_shard("auto", {})
    for indices, step in (([1, 3, 7], 1), ([1, 2, 5], 1), ([1, 2, 3], 0)):
        for index in indices:
            with pytest.raises(UsageError, match="without gaps"):
                parse_shard("auto", _array(indices, index, step))
