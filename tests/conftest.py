"""Fixtures shared by all tests: the folder of real slides, and a small synthetic cohort."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from tests.forked import Commands
from wsi_lmc.synthetic import write_cohort

settings.register_profile("shared machines", deadline=None)  # how long an example takes says nothing there
settings.load_profile("shared machines")

_DEFAULT_TEST_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real slides and tiles (``WSI_LMC_TEST_DATA``), or a skip that says how to get it."""
    folder = Path(os.environ.get("WSI_LMC_TEST_DATA", _DEFAULT_TEST_DATA))
    if (folder / "wsi").is_dir():
        return folder
    message = f"no real slides at {folder}/wsi: set WSI_LMC_TEST_DATA to the folder that holds wsi/"
    if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def real_slides(test_data: Path) -> Path:
    """The folder of real slides."""
    return test_data / "wsi"


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``manifest.csv``, ``slides/`` and ``truth/``: two small synthetic slides a site."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, {"north": 2, "south": 2}, seed=3, size=(1024, 1280))
    return folder


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs ``wsi-lmc`` in processes that are forked from one, so that starting takes no time."""
    with Commands(tmp_path_factory.mktemp("program")) as found:
        yield found


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports another implementation to compare with, from where ``make places`` put them."""

    def load(name: str) -> ModuleType:
        monkeypatch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix) / "oracles")])
        try:
            with warnings.catch_warnings():  # compiled here for the first time, others' code may warn of itself
                warnings.simplefilter("ignore", SyntaxWarning)
                return import_module(name)
        except ImportError:
            message = f"no {name}: 'make places' puts it beside the environment"
            if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
                pytest.fail(message)
            pytest.skip(message)

    return load


@pytest.fixture
def browser(oracle: Callable[[str], ModuleType]) -> Iterator[Any]:
    """A browser without a window, or a skip that says how to get it."""
    path = shutil.which("chromium")
    if path is None:
        message = "no chromium: apt-get install chromium"
        if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with oracle("playwright.sync_api").sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()
