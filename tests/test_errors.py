"""Errors: one tree, its exit codes, and every error intact after a trip between processes."""

import inspect
import re
import typing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from wsi_lmc import errors
from wsi_lmc.errors import SlideCode, SlideError, StoreError, TrainingError, UsageError, WsiLmcError

PARTS = ("2 slides", "1 slide", "Remove one.")


def _raise(kind: type[WsiLmcError]) -> None:
    raise SlideError("damaged", *PARTS) if kind is SlideError else kind(*PARTS)


def test_every_error_is_in_the_tree_that_the_module_prints() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)]
    assert all(issubclass(item, WsiLmcError) for item in classes)
    assert all(item.__name__ in (errors.__doc__ or "") for item in classes)
    assert not issubclass(WsiLmcError, OSError | ValueError), "or an except of those would swallow ours"


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (SlideError, 1), (StoreError, 1), (TrainingError, 1)])
def test_exit_codes(kind: type[WsiLmcError], code: int) -> None:
    with pytest.raises(kind) as caught:
        _raise(kind)
    assert caught.value.exit_code == code


def test_a_message_says_what_was_found_expected_and_what_to_do() -> None:
    error = UsageError(*PARTS)
    assert str(error) == "2 slides; expected 1 slide. Remove one."
    assert (error.found, error.expected, error.remedy) == PARTS


def test_slide_codes_are_distinct_words() -> None:
    codes = typing.get_args(SlideCode)
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


@pytest.mark.parametrize("kind", [UsageError, SlideError, StoreError, TrainingError])
def test_errors_survive_the_way_from_a_worker_process(kind: type[WsiLmcError]) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(kind) as caught:
        pool.submit(_raise, kind).result()
    assert str(caught.value) == "2 slides; expected 1 slide. Remove one."
    assert (caught.value.found, caught.value.expected, caught.value.remedy) == PARTS
    if isinstance(caught.value, SlideError):
        assert caught.value.code == "damaged"


def test_every_code_is_documented_with_its_remedy() -> None:
    table = (Path(__file__).parents[1] / "docs" / "codes.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| .+ \| (.+) \|$", table, re.MULTILINE))
    assert set(rows) == set(typing.get_args(SlideCode))
