"""Killed before any change to the disk whatever, a run goes on to the same bytes, and nothing torn is ever published.

By default a few changes are tried; ``WSI_LMC_KILLS=100`` tries a hundred of each stage, ``all`` every single one, and
``WSI_LMC_SEED`` chooses others.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.injection import Counters
from tests.faults.stages import Stages
from wsi_lmc.cohort import find_slides
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import write_cohort

KILLS = os.environ.get("WSI_LMC_KILLS", "6")
SEED = int(os.environ.get("WSI_LMC_SEED", "0"))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_cohort(folder, {"north": 2}, seed=7, size=(1024, 1024))
    tile_cohort(find_slides([str(folder / "slides")]), folder / "tiled", TileConfig(), RunOptions(SerialExecutor()))
    return folder / "slides"


def content(out: Path) -> dict[str, str]:
    """All of a run but logs, locks and what depends on the clock: seconds in records, and TensorBoard's events."""
    found: dict[str, str] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        first = path.relative_to(out).parts[0]
        if first in (".locks", "logs", "records", "slides.csv", "events") or path.suffix in (".pt", ".sha256"):
            continue
        data = path.read_bytes()
        if path.name == "metrics.jsonl":
            rows = [{**json.loads(line), "wall": None} for line in data.splitlines()]
            data = json.dumps(rows).encode()
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def states(out: Path) -> dict[str, tuple[str, str, int]]:
    """What the records say but for the time it took."""
    records = [path for stage in ("tile", "embed") for path in out.glob(f"records/{stage}/*.json")]
    found = {path.relative_to(out).as_posix(): json.loads(path.read_text()) for path in records}
    return {name: (each["state"], each["code"], each["tiles"]) for name, each in found.items()}


@pytest.mark.row(1)
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["run", "train"])
def test_killed_before_any_change_it_resumes_to_the_same_bytes(
    stage: str, slides: Path, tmp_path: Path, shim: Path, counters: Counters
) -> None:
    expected, out = tmp_path / "expected", tmp_path / "killed"
    with Stages(shim, counters, f"{tmp_path}/") as stages:
        assert stages.do(stage, slides, expected)[0] == 0
        total = counters.changes
        assert total > 50, "the library sees what is written"
        tried = total if KILLS == "all" else min(int(KILLS), total)
        numbers = sorted(np.random.default_rng(SEED).choice(total, tried, replace=False).tolist())
        sys.stdout.write(f"{stage}: killed before {tried} of {total} changes, seed {SEED}\n")
        for number in numbers:
            where = f"killed before change {number} of {total}"
            assert stages.do(stage, slides, out, kill_at=number)[0] == -9, where
            status, found = stages.do("look", slides, out)
            assert status == 0, where
            assert [line for line in found if line[2] == "anew" or "fingerprint" in line[1]] == [], where
            assert stages.do(stage, slides, out)[0] == 0, where
            assert content(out) == content(expected), where
            assert states(out) == states(expected), where
            assert not list((out / ".tmp").glob("*")), where
            assert not list((out / ".working").glob("*")), where
            shutil.rmtree(out)
