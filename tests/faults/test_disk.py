"""Disks that are full, read-only or away for a moment: nothing is lost, no slide is blamed for it, and it is said."""

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Commands
from wsi_lmc.verify import verify


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_lmc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def states(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "slides.csv").open(newline="") as file:
        return {row["slide_id"]: (row["state"], row["code"]) for row in csv.DictReader(file)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, where the system lets us have one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system; the other test injects the error")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.row(3)
def test_a_disk_that_fills_up_stops_the_run_which_goes_on_once_there_is_room(
    six_slides: Path, small_disk: Path
) -> None:
    out = small_disk / "run"
    command = ("tile", six_slides, "-o", out, "--codec", "lossless", "--quiet", "--workers", 1)
    stopped = run(*command)
    assert stopped.returncode == 2, stopped.stderr
    assert "no room left on the disk of" in stopped.stderr
    assert str(out) in stopped.stderr
    assert "Traceback" not in stopped.stderr
    published = {path.name: path.stat().st_ino for path in (out / "tiles").glob("*.zarr")}
    assert 0 < len(published) < 6
    assert not [each for each in verify(out).findings if each.remedy == "anew"], "what is published is whole"
    assert not any("disk_full" in path.read_text() for path in (out / "records").rglob("*.json")), "nobody is blamed"
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert set(states(out).values()) == {("done", "")}
    assert {name: (out / "tiles" / name).stat().st_ino for name in published} == published
    assert verify(out).findings == ()


@pytest.mark.row(3)
@pytest.mark.parametrize("stage", ["tile", "embed", "train"])
def test_no_room_at_any_moment_is_a_clear_end(stage: str, six_slides: Path, tmp_path: Path, commands: Commands) -> None:
    """The error is injected at the first change, early, and late; afterwards the same command finishes."""
    done = tmp_path / "done"
    assert commands("tile", six_slides, "-o", done, "-q", "--workers", 0).returncode == 0
    out = tmp_path / "out"
    command: dict[str, tuple[object, ...]] = {
        "tile": ("tile", six_slides, "-o", out, "-q", "--workers", 0),
        "embed": ("embed", done, "--encoder", "untrained:vit-demo", "-o", out, "-q", "--workers", 0, "--device", "cpu"),
        "train": (
            *("train", done, "-o", out, "-q", "--architecture", "vit-demo", "--batch", 4, "--steps", 2, "--resume"),
            *("--device", "cpu"),
        ),
    }
    for after in (0, 40):
        faults = {"writes": f"{out}/", "write_errno": errno.ENOSPC, "write_after": after}
        stopped = commands(*command[stage], **faults)
        assert stopped.returncode in (1, 2), (after, stopped.stderr)
        assert os.strerror(errno.ENOSPC) in stopped.stderr, (after, stopped.stderr)
        assert any(line.startswith("wsi-lmc: ") for line in stopped.stderr.splitlines()), (after, stopped.stderr)
        assert "Traceback" not in stopped.stderr or stage == "train", "TensorBoard's own thread tells of its own"
    again = commands(*command[stage])
    assert again.returncode == 0, again.stderr


@pytest.mark.row(4)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    six_slides: Path, tmp_path: Path, commands: Commands
) -> None:
    inside = commands("tile", six_slides, "-o", six_slides / "run")
    assert (inside.returncode, "lies inside the input" in inside.stderr) == (2, True)
    assert not (six_slides / "run").exists()
    faults = {"writes": "/readonly", "write_errno": errno.EROFS}
    for command in (("tile", six_slides), ("embed", six_slides, "--encoder", "untrained:vit-demo")):
        read_only = commands(*command, "-o", tmp_path / "readonly", **faults)
        assert (read_only.returncode, "cannot write to" in read_only.stderr) == (2, True), read_only.stderr
        assert not (tmp_path / "readonly").exists()


@pytest.mark.row(5)
@pytest.mark.parametrize(
    ("reader", "error"),
    [("auto", errno.EIO), ("auto", errno.ESTALE), ("openslide", errno.EIO), ("tiffslide", errno.ESTALE)],
)
def test_a_share_that_is_away_for_a_moment_costs_a_second_try(
    reader: str, error: int, six_slides: Path, tmp_path: Path, commands: Commands
) -> None:
    slide = next(six_slides.glob("*.tif"))
    whole = commands("tile", slide, "-o", tmp_path / "whole", "-q", "--reader", reader, "--workers", 0)
    assert whole.returncode == 0, whole.stderr
    for after in (0, 12):
        faults = {"reads": f"/{slide.name}", "read_errno": error, "read_after": after, "read_times": 2}
        out = tmp_path / f"away-{after}"
        command = ("tile", slide, "-o", out, "-q", "--reader", reader, "--workers", 0)
        met = commands(*command, **faults)
        assert commands.counters.reads > after, "the error was met"
        assert met.returncode == 0, met.stderr
        for path in (tmp_path / "whole" / "tiles").rglob("*"):
            if path.is_file():
                same = out / path.relative_to(tmp_path / "whole")
                assert same.read_bytes() == path.read_bytes(), same


@pytest.mark.row(5)
def test_a_share_that_stays_away_fails_its_slide_alone(six_slides: Path, tmp_path: Path, commands: Commands) -> None:
    slide = sorted(six_slides.glob("*.tif"))[0]
    faults = {"reads": f"/{slide.name}", "read_errno": errno.ESTALE}
    out = tmp_path / "out"
    command = ("tile", six_slides, "-o", out, "-q", "--workers", 0)
    met = commands(*command, **faults)
    assert met.returncode == 1, met.stderr
    assert states(out).pop(slide.stem) == ("failed", "io")
    assert sum(state == ("done", "") for state in states(out).values()) == 5
    again = commands("retry-failed", out, "-q", "--workers", 0)
    assert again.returncode == 0, again.stderr
    assert set(states(out).values()) == {("done", "")}


@pytest.mark.row(5)
def test_slow_reads_and_a_clock_that_jumps_change_nothing(six_slides: Path, tmp_path: Path, commands: Commands) -> None:
    """The wall clock jumps a day forth and back with every look, the disk takes a millisecond for every read."""
    slide = next(six_slides.glob("*.tif"))
    calm: dict[str, Any] = {}
    faults: dict[str, Any] = {"reads": f"/{slide.name}", "read_us": 1000, "clock_s": 86_400}
    for name, met in (("calm", calm), ("upset", faults)):
        for command in (
            ("tile", slide),
            ("embed", tmp_path / name, "--encoder", "untrained:vit-demo", "--device", "cpu"),
        ):
            done = commands(*command, "-o", tmp_path / name, "-q", "--workers", 0, **met)
            assert done.returncode == 0, done.stderr
    for folder in ("tiles", "features"):
        for path in (tmp_path / "calm" / folder).rglob("*"):
            if path.is_file():
                same = tmp_path / "upset" / path.relative_to(tmp_path / "calm")
                assert same.read_bytes() == path.read_bytes(), same
