"""Several processes on one output, one task given out twice: each slide is done once, whoever is left goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.encoder import load_encoder, resolve_device
from wsi_lmc.executor import attempt
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.locks import SETTING
from wsi_lmc.steps.embed import EmbedTask, embed_slide
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.verify import verify

COMMAND = [sys.executable, "-m", "wsi_lmc", "tile", "--quiet", "--workers", "1"]


@pytest.mark.row(16)
@pytest.mark.parametrize("kind", ["flock", "claims"])
def test_four_processes_on_six_slides_do_each_once(
    kind: str, six_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, kind)
    out = tmp_path / "run"
    processes = [
        subprocess.Popen([*COMMAND, str(six_slides), "-o", str(out)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    before = [int(match[1]) if (match := re.search(r"\((\d) before\)", text)) else 0 for text in said]
    assert sum(6 - count for count in before) == 6, "each slide was cut by one of them"
    assert verify(out).findings == ()
    assert len(list((out / "tiles").iterdir())) == 6


@pytest.mark.row(16)
@pytest.mark.parametrize("kind", ["flock", "claims"])
def test_when_a_holder_is_killed_another_takes_over(
    kind: str, six_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder is stopped with a slide in work, so that the other is waiting for it; then it is killed."""
    monkeypatch.setenv(SETTING, kind)
    out = tmp_path / "run"
    here = [*COMMAND[:-1], "0", str(six_slides), "-o", str(out)]
    holder = subprocess.Popen(here, stdout=subprocess.DEVNULL)
    note = out / ".working"
    while holder.poll() is None and not any(note.glob("*.json")):
        time.sleep(0.001)
    holder.send_signal(signal.SIGSTOP)
    held = [path.stem for path in note.glob("*.json")]
    other = subprocess.Popen(here, stdout=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=8 if held else 0.01)
        assert not held or not (out / "tiles" / f"{held[0].removeprefix('tile-')}.zarr").exists()
    finally:
        holder.kill()
        holder.wait()
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0
    assert "6 done" in said
    assert verify(out).findings == ()


@pytest.mark.row(24)
def test_a_task_that_is_given_out_twice_is_harmless(six_slides: Path, tmp_path: Path) -> None:
    """dask may run a task twice: at the same time here, then once more when it is done."""
    entry = find_slides([str(six_slides)])[0]
    tile = TileTask(entry, tmp_path, TileConfig())
    sha256 = load_encoder("untrained:vit-demo", resolve_device("cpu")).sha256
    config = EmbedConfig(batch=4, device="cpu")
    embed = EmbedTask(entry.slide_id, tile, tmp_path, "untrained:vit-demo", sha256, config)
    results: list[Outcome] = []

    def twice(step: object, task: object) -> None:
        threads = [threading.Thread(target=lambda: results.append(attempt(step, task))) for _ in range(2)]  # type: ignore[arg-type]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    twice(tile_slide, tile)
    twice(embed_slide, embed)
    store = tmp_path / "features" / f"{entry.slide_id}.zarr"
    once = {path: path.stat().st_ino for path in tmp_path.rglob("c.*")}
    twice(embed_slide, embed)
    assert [outcome.state for outcome in results] == ["done"] * 6
    assert sorted(outcome.fresh for outcome in results) == [False] * 4 + [True] * 2
    assert {path: path.stat().st_ino for path in tmp_path.rglob("c.*")} == once
    assert len(FeatureStore.open(store)) == results[0].tiles


@pytest.mark.row(22)
def test_bytes_do_not_depend_on_the_number_of_workers(six_slides: Path, tmp_path: Path) -> None:
    """None, in this process, and three; the latter in blocks of three tiles."""
    expected, found = tmp_path / "expected", tmp_path / "found"
    for out, count, block in ((expected, 0, 4096), (found, 3, 3)):
        cut = [*COMMAND[:-1], str(count), str(six_slides), "-o", str(out)]
        assert subprocess.run(cut, check=False, stdout=subprocess.DEVNULL).returncode == 0
        embed = [*COMMAND[:3], "embed", str(out), "--encoder", "untrained:vit-demo", "-o", str(out), "--quiet"]
        options = ["--workers", str(count), "--block", str(block), "--batch", "4", "--device", "cpu"]
        assert subprocess.run([*embed, *options], check=False, stdout=subprocess.DEVNULL).returncode == 0
    for folder in ("tiles", "features", "contours", "overviews"):
        for path in (expected / folder).rglob("*"):
            if path.is_file():
                assert (found / path.relative_to(expected)).read_bytes() == path.read_bytes(), path


@pytest.mark.row(17)
def test_other_settings_and_a_replaced_slide_are_refused_or_made_anew_by_flag(six_slides: Path, tmp_path: Path) -> None:
    entry = find_slides([str(six_slides)])[0]
    slide, out = tmp_path / entry.path.name, tmp_path / "run"
    slide.write_bytes(entry.path.read_bytes())
    command = [*COMMAND[:-1], "0", str(slide), "-o", str(out)]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    store = out / "tiles" / f"{entry.slide_id}.zarr" / "zarr.json"
    before = store.read_bytes()

    def code(*flags: str) -> tuple[int, str]:
        result = subprocess.run([*command, *flags], check=False, stdout=subprocess.DEVNULL)
        record = json.loads((out / "records" / "tile" / f"{entry.slide_id}.json").read_text())
        return result.returncode, record["code"]

    assert code("--tile-px", "128") == (1, "other_configuration")
    assert store.read_bytes() == before
    assert code("--tile-px", "128", "--overwrite") == (0, "")
    assert store.read_bytes() != before
    with slide.open("ab") as file:
        file.write(os.urandom(8))
    assert code("--tile-px", "128") == (1, "slide_changed")
    assert code("--tile-px", "128", "--overwrite") == (0, "")
    assert verify(out).findings == ()
