"""Real slides, real workers, real kills: a run that was killed again and again ends like one that was left alone.

``WSI_LMC_SIGKILLS=20`` kills as often as that, ``WSI_LMC_SEED`` at other moments.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_lmc.verify import verify

KILLS = int(os.environ.get("WSI_LMC_SIGKILLS", "2"))
SEED = int(os.environ.get("WSI_LMC_SEED", "0"))
_OF_THE_CLOCK = ("seconds", "sealed")


def two_stages(slides: Path, out: Path) -> list[list[str]]:
    """The commands of tile and embed."""
    wsi_lmc = [sys.executable, "-m", "wsi_lmc"]
    small = ["--device", "cpu", "--batch", "8", "--block", "16"]
    return [
        [*wsi_lmc, "tile", str(slides), "-o", str(out), "-q", "--workers", "2"],
        [
            *wsi_lmc,
            "embed",
            str(out),
            "--encoder",
            "untrained:vit-demo",
            "-o",
            str(out),
            "-q",
            "--workers",
            "2",
            *small,
        ],
    ]


def start(slides: Path, out: Path) -> subprocess.Popen[bytes]:
    """Both, one after the other, in a process group of their own."""
    script = "import subprocess, sys, json\nfor command in json.loads(sys.argv[1]): subprocess.run(command, check=True)"
    command = [sys.executable, "-c", script, json.dumps(two_stages(slides, out))]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def content(out: Path) -> dict[str, object]:
    """Every file of a run but locks and logs; of records and the table, all but what the clock says."""
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if name.startswith((".locks/", "logs/")):
            continue
        if name == "slides.csv":
            with path.open(newline="") as file:
                found[name] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        elif name.startswith("records/") and "planned" not in name:
            record = json.loads(path.read_text())
            found[name] = {key: value for key, value in record.items() if key not in _OF_THE_CLOCK}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.row(1)
@pytest.mark.real
@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(
    six_slides: Path, real_slides: Path, tmp_path: Path
) -> None:
    """Three real slides and three drawn ones; now the whole group is killed, now the first process alone."""
    rows = [(real_slides / "CMU-1-Small-Region.svs", ""), (next(real_slides.glob("tcga-*.svs")), "0.5")]
    rows += [(next((real_slides / "kang_P2_0039").glob("*.tif")), "0.25")]
    rows += [(path, "") for path in sorted(six_slides.iterdir())[:3]]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide,mpp\n" + "".join(f"{path.resolve()},{mpp}\n" for path, mpp in rows))
    alone, out = tmp_path / "alone", tmp_path / "killed"
    began = time.monotonic()
    assert start(manifest, alone).wait(600) == 0
    took = time.monotonic() - began
    rng = random.Random(SEED)  # noqa: S311  any moment will do
    killed = 0
    while killed < KILLS:
        running = start(manifest, out)
        try:
            running.wait(rng.uniform(0.1, 1.0) * took)
        except subprocess.TimeoutExpired:
            if rng.random() < 0.5:
                os.killpg(running.pid, signal.SIGKILL)
            else:
                running.kill()
            running.wait()
            killed += 1
            torn = [finding for finding in verify(out).findings if finding.remedy == "anew"] if out.is_dir() else []
            assert torn == [], f"after kill {killed}, seed {SEED}"
        else:
            for path in (out / "features").glob("*.zarr"):  # it was through: some of it is to be done again
                if rng.random() < 0.7:
                    path.rename(tmp_path / f"{path.name}.{killed}.{time.monotonic_ns()}")
    assert start(manifest, out).wait(600) == 0
    expected, found = content(alone), content(out)
    assert found.keys() == expected.keys()
    differing = [name for name in expected if found[name] != expected[name]]
    assert differing == []
    assert verify(out).findings == ()
