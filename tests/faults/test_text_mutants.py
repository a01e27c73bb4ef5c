"""Files of every text format with bytes changed at random: each parses, or is an error that says what to do.

200 mutants of each format, from seeds 0 to 199, which a failure names. ``make fuzz`` goes on from there, guided by
coverage.
"""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.faults.parsers import NASTY, PARSERS, WHOLE
from wsi_lmc.errors import WsiLmcError

MUTANTS = 200
_SLOW_S = 5.0
_TOKENS = (
    b"\0", b"\xff", b'"', b"'", b",", b"\n", b"[", b"]", b"{", b"}", b":", b"&a ", b"*a", b"-", b"e999", b"NaN",
    b"1e-300", b"9" * 30, b"null", b"true", b"<<: ", b"!!", b"? ", b"\t", b"..", b"/", b"|", b"\xed\xa0\x80",
    b"2001-99-99",
)  # fmt: skip


def mutate(data: bytes, seed: int) -> bytes:
    """Change, remove, repeat or insert a few pieces."""
    random = np.random.default_rng(seed)
    mutant = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(mutant) + 1))
        end = at + int(random.integers(1, 12))
        how = random.integers(5)
        if how == 0:
            mutant[at : at + 1] = bytes([int(random.integers(256))])
        elif how == 1:
            del mutant[at:end]
        elif how == 2:
            mutant[at:at] = mutant[at:end] * int(random.integers(1, 4))
        elif how == 3:
            mutant[at:at] = _TOKENS[int(random.integers(len(_TOKENS)))]
        else:
            mutant[at:end] = _TOKENS[int(random.integers(len(_TOKENS)))]
    return bytes(mutant)


def _outcome(name: str, data: bytes, folder: Path) -> str:
    path = folder / f"{name}.txt"
    path.write_bytes(data)
    began = time.monotonic()
    try:
        PARSERS[name](path)
        said = None
    except WsiLmcError as error:
        said = error
    assert time.monotonic() - began < _SLOW_S
    if said is None:
        return "parsed"
    assert said.found
    assert said.expected
    assert said.remedy
    assert len(str(said)) < 2000, "a message, not the file"
    return type(said).__name__


@pytest.mark.parametrize("name", PARSERS)
def test_a_whole_file_is_parsed(name: str, tmp_path: Path) -> None:
    assert _outcome(name, WHOLE[name], tmp_path) == "parsed"


@pytest.mark.parametrize("name", PARSERS)
def test_mutants_parse_or_are_errors_of_ours(name: str, tmp_path: Path) -> None:
    found: Counter[str] = Counter()
    for seed in range(MUTANTS):
        data = mutate(WHOLE[name], seed)
        try:
            found[_outcome(name, data, tmp_path)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {data!r}") from error
    assert found.total() == MUTANTS
    assert len(found) >= 2 or name == "run", "else the mutants are all alike; damaged records count as none"


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in NASTY for number in range(len(NASTY[name]))])
def test_what_breaks_parsers_breaks_none_here(name: str, number: int, tmp_path: Path) -> None:
    _outcome(name, NASTY[name][number], tmp_path)
