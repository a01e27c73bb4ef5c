"""Fixtures shared by all tests: the folder of real slides, and small real stores."""

import os
from pathlib import Path

import pytest

_DEFAULT_TEST_DATA = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that holds ``data/`` (real slides and tiles), or a skip that says how to get it."""
    folder = Path(os.environ.get("WSI_LMC_TEST_DATA", _DEFAULT_TEST_DATA))
    if (folder / "data" / "wsi").is_dir():
        return folder
    message = f"no real slides at {folder}/data/wsi: set WSI_LMC_TEST_DATA to the folder that holds data/"
    if os.environ.get("WSI_LMC_REQUIRE_TEST_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def real_slides(test_data: Path) -> Path:
    """The folder of real slides."""
    return test_data / "data" / "wsi"
