"""Small synthetic downloads in the layouts of the real ones, shared by the pipelines' tests."""

from pathlib import Path

import pytest

from pipelines.smoke import write_downloads

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``camelyon16``, ``midog`` and ``gleason``; nobody may change it."""
    folder = tmp_path_factory.mktemp("downloads")
    write_downloads(folder)
    return folder


@pytest.fixture(scope="session")
def configs() -> Path:
    """The shipped settings."""
    return ROOT / "configs"
