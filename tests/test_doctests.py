"""Every example in a docstring gives what it says."""

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import wsi_lmc

PACKAGE = Path(wsi_lmc.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def _module(path: Path) -> ModuleType:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 8


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_give_what_they_say(
    path: Path, small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples that need a slide find two sites' in ``slides/``, and may write beside them."""
    (tmp_path / "slides").symlink_to(small_cohort / "slides")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(_module(path), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
