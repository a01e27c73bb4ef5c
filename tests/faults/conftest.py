"""Fixtures of the tests of faults: small slides, and the library that injects faults of the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.injection import Counters, build_shim
from tests.forked import Commands
from wsi_lmc.synthetic import write_cohort


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library, see ``shim.c``."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def counters(tmp_path: Path) -> Counters:
    """What it counts."""
    return Counters(tmp_path / "counters")


@pytest.fixture(scope="session")
def commands(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands in children of one process, which may meet faults."""
    with Commands(tmp_path_factory.mktemp("commands"), shim) as found:
        yield found


@pytest.fixture(scope="session")
def six_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides of two sites, small."""
    folder = tmp_path_factory.mktemp("six")
    write_cohort(folder, {"north": 3, "south": 3}, seed=9, size=(1024, 1024))
    return folder / "slides"
