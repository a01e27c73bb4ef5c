"""Killed before any change to the disk whatever, a run goes on to the same bytes, and nothing torn is ever published.

By default a spread of changes is tried; ``WSI_LMC_KILLS=all`` kills before every single one.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.faults.every_change import tile_and_embed, train
from tests.faults.injection import Counters, build_shim, faulty
from wsi_lmc.cohort import find_slides
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.synthetic import write_cohort

pytestmark = [pytest.mark.row(1), pytest.mark.slow]
KILLS = os.environ.get("WSI_LMC_KILLS", "12")
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


@pytest.mark.parametrize(("stage", "work"), [("run", tile_and_embed), ("train", train)])
def test_killed_before_any_change_it_resumes_to_the_same_bytes(
    stage: str, work: Callable[[Path, Path], None], slides: Path, tmp_path: Path
) -> None:
    expected = tmp_path / "expected"
    work(slides, expected)
    shim, counters = build_shim(tmp_path), Counters(tmp_path / "counters")
    command = [sys.executable, "-m", "tests.faults.every_change", stage, str(slides), str(tmp_path), str(counters.path)]
    environment = faulty(shim, counters, writes="/killed-")

    def attempts(numbers: list[int]) -> subprocess.Popen[str]:
        listed = ",".join(map(str, numbers))
        return subprocess.Popen(
            [*command, listed], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    with attempts([10**9]) as process:
        assert process.stdout is not None
        unharmed = json.loads(process.stdout.readline())
        total = unharmed["changes"]
        process.communicate("\n", timeout=60)
    assert unharmed["killed"] == 0
    assert total > 50, "the library sees what is written"
    tried = total if KILLS == "all" else min(int(KILLS), total)
    numbers = sorted(np.random.default_rng(SEED).choice(total, tried, replace=False).tolist())
    sys.stdout.write(f"{stage}: killed before {tried} of {total} changes, seed {SEED}\n")
    with attempts(numbers) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for number in numbers:
            found = json.loads(process.stdout.readline())
            where = f"killed before change {number} of {total}"
            assert (found["change"], found["killed"]) == (number, -9), where
            assert found["torn"] == [], where
            assert found["resumed"] == 0, where
            out = Path(found["out"])
            assert content(out) == content(expected), where
            assert states(out) == states(expected), where
            assert not list((out / ".tmp").glob("*")), where
            assert not list((out / ".working").glob("*")), where
            process.stdin.write("\n")
            process.stdin.flush()
