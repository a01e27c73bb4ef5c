"""Which share of a cohort a process does, where several run the same command side by side (array jobs)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wsi_lmc.errors import UsageError

AUTO = "auto"
_SLURM = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Shard:
    """Share ``number`` (from 1) of ``of`` shares; together they hold every slide of the cohort exactly once."""

    number: int = 1
    of: int = 1

    def take[T](self, items: Sequence[T], name: Callable[[T], str]) -> list[T]:
        """Every ``of``-th item by ``name``, so that the order in which a file system lists them plays no part.

        >>> Shard(1, 2).take(["c", "a", "b"], str)
        ['a', 'c']
        """
        if self.of == 1:
            return list(items)
        return sorted(items, key=name)[self.number - 1 :: self.of]

    def size(self, total: int) -> int:
        """How many of ``total`` items this share has."""
        return len(range(self.number - 1, total, self.of))


WHOLE = Shard()


def parse_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """``i/n`` with i from 1 to n, or ``auto`` inside a SLURM array job; None is the whole cohort.

    >>> parse_shard("3/8", {})
    Shard(number=3, of=8)

    Raises:
        UsageError: another text, or ``auto`` without a regular array.
    """
    if text is None:
        return WHOLE
    if text == AUTO:
        return _of_slurm(environment)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}", "i/n with i from 1 to n, such as 3/8, or auto", "Correct it.")
    return Shard(int(found[1]), int(found[2]))


def _of_slurm(environment: Mapping[str, str]) -> Shard:
    """The share of this task of an array: the first index is share 1, wherever the array begins."""
    values = {name: environment.get(_SLURM + name, "") for name in ("ID", "COUNT", "MIN", "MAX", "STEP")}
    values["STEP"] = values["STEP"] or "1"
    try:
        index, count, first, last, step = (int(value) for value in values.values())
    except ValueError as error:
        raise UsageError(
            "--shard auto outside an array job",
            f"{_SLURM}ID, COUNT, MIN and MAX in the environment",
            "Submit with 'sbatch --array=1-N', or name the share: --shard i/n.",
        ) from error
    if step < 1 or range(first, last + 1, step)[-1:] != range(last, last + 1) or (last - first) // step + 1 != count:
        raise UsageError(
            f"--shard auto in an array of {count} tasks from {first} to {last}",
            "indices without gaps",
            "Submit with 'sbatch --array=1-N', or name the share: --shard i/n.",
        )
    return Shard((index - first) // step + 1, count)
