"""How far a run is: right numbers, from records alone, with as much reading as there are records and no writing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import fingerprint
from wsi_lmc.publish import working
from wsi_lmc.runfolder import Request, plan, record
from wsi_lmc.status import RunReader, StageStatus, Tally, in_words
from wsi_lmc.steps.outcome import Outcome, State

NOW = 1_000_000.0
_WATCHED = """
import json, sys
seen = []
sys.addaudithook(lambda name, args: seen.append((name, [str(arg) for arg in args])))
from wsi_lmc.cli import main
try:
    main()
except SystemExit as left:
    code = left.code
print(json.dumps([code, seen]), file=sys.stderr)
"""
_CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.link", "os.chmod"}
_LOCKING = {"fcntl.flock", "fcntl.lockf", "fcntl.fcntl", "msvcrt.locking"}


def _ended(tally: Tally, minutes_ago: float, state: State = "done", seconds: float = 60.0, fresh: bool = True) -> None:
    tally.add(Outcome("x", "tile", state, tiles=10, seconds=seconds, fresh=fresh), NOW - 60 * minutes_ago)


def _write(out: Path, outcome: Outcome, minutes_ago: float) -> None:
    """A record as a run writes it, so many minutes ago."""
    record(out, outcome)
    at = NOW - 60 * minutes_ago
    os.utime(out / "records" / "tile" / f"{outcome.slide_id}.json", (at, at))


def _many(out: Path, count: int) -> None:
    """Real records in great number; multiplied by hand, without a flush to disk for each."""
    plan(out, "tile", Request(tuple(f"slide-{number:05}" for number in range(count + 7))))
    record(out, Outcome("slide-00000", "tile", "done", tiles=10, mpp=0.5, mpp_source="aperio.MPP", seconds=3.25))
    folder = out / "records" / "tile"
    values = json.loads((folder / "slide-00000.json").read_text())
    del values["sealed"]
    for number in range(1, count):
        own = values | {"slide_id": f"slide-{number:05}"}
        own["sealed"] = fingerprint(own)
        (folder / f"slide-{number:05}.json").write_text(json.dumps(own))


def _only(out: Path) -> StageStatus:
    (status,) = RunReader(out).read(NOW)
    return status


def test_the_pace_is_that_of_the_last_minutes() -> None:
    tally = Tally("tile", 30)
    for minutes in (50.0, 40.0, 9.5, 7.0, 5.0, 3.0, 1.0):
        _ended(tally, minutes)
    standing = tally.standing(NOW)
    assert standing.pace.over_s == pytest.approx(600.0)
    assert standing.pace.per_minute == pytest.approx(0.5)
    assert standing.pace.tiles_per_minute == pytest.approx(5.0)
    assert standing.left == 23
    assert standing.eta_s == pytest.approx(23 / 0.5 * 60)
    assert standing.line() == "tile: 7 of 30, 7 done, 23 left, 70 tiles, 0.5 a minute, about 46 min left"


def test_a_run_that_just_began_is_measured_since_then() -> None:
    tally = Tally("tile", 10)
    for minutes in (3.0, 2.0, 1.0):
        _ended(tally, minutes)
    assert tally.standing(NOW).pace.over_s == pytest.approx(240.0), "the first slide took the minute before it ended"
    assert tally.standing(NOW).pace.per_minute == pytest.approx(0.75)


def test_slow_slides_are_measured_over_an_hour_and_old_ones_not_at_all() -> None:
    tally = Tally("tile", 10)
    for minutes in (2000.0, 50.0, 30.0, 2.0):
        _ended(tally, minutes, seconds=1200.0)
    assert tally.standing(NOW).pace.per_minute == pytest.approx(3 / 60)
    late = tally.standing(NOW + 7200.0)
    assert (late.pace.per_minute, late.eta_s) == (None, None)
    assert "time left unknown" in late.line()


def test_slides_that_were_done_before_say_nothing_about_the_pace() -> None:
    tally = Tally("tile", 1000)
    for _ in range(900):
        _ended(tally, 0.1, seconds=0.01, fresh=False)
    assert tally.standing(NOW).pace.per_minute is None
    for minutes in (3.0, 2.0, 1.0):
        _ended(tally, minutes)
    assert tally.standing(NOW).eta_s == pytest.approx(97 / 0.75 * 60)


def test_what_is_complete_has_no_time_left() -> None:
    tally = Tally("tile", 1)
    _ended(tally, 0.1, "empty")
    assert tally.standing(NOW).line() == "tile: 1 of 1, 1 empty, 10 tiles"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h"), (2e5, "2.3 days")],
)
def test_spans_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_a_folder_is_read(tmp_path: Path) -> None:
    plan(tmp_path, "tile", Request(tuple("abcdefgh")))
    _write(tmp_path, Outcome("a", "tile", "done", tiles=30, seconds=60.0), 6.0)
    _write(tmp_path, Outcome("d", "tile", "failed", "damaged", "half a file"), 4.0)
    _write(tmp_path, Outcome("b", "tile", "failed", "mpp_missing", "no mpp"), 5.0)
    _write(tmp_path, Outcome("c", "tile", "empty", seconds=60.0), 2.0)
    status = _only(tmp_path)
    assert (status.standing.total, status.standing.left, status.standing.tiles) == (8, 4, 30)
    assert status.standing.states == {"done": 1, "failed": 2, "empty": 1}
    assert status.standing.pace.per_minute == pytest.approx(4 / 7)
    assert [(o.slide_id, o.code) for o in status.failures] == [("b", "mpp_missing"), ("d", "damaged")]
    assert status.last_at == pytest.approx(NOW - 120)


def test_who_works_on_what_is_told(tmp_path: Path) -> None:
    plan(tmp_path, "tile", Request(tuple("ab")))
    with working(tmp_path, "tile-b"), working(tmp_path, "embed-a"):
        (holder,) = _only(tmp_path).working
        assert (holder.name, holder.pid, holder.alive) == ("b", os.getpid(), True)
    assert _only(tmp_path).working == []


def test_only_new_records_are_read_again(tmp_path: Path) -> None:
    plan(tmp_path, "tile", Request(tuple("ab")))
    _write(tmp_path, Outcome("a", "tile", "failed", "io"), 9.0)
    reader = RunReader(tmp_path)
    assert reader.read(NOW)[0].standing.states == {"failed": 1}
    old = tmp_path / "records" / "tile" / "a.json"
    stamp = old.stat().st_mtime_ns
    old.write_text("{")
    os.utime(old, ns=(stamp, stamp))
    assert reader.read(NOW)[0].standing.states == {"failed": 1}, "not read a second time"
    for slide_id in "ab":
        _write(tmp_path, Outcome(slide_id, "tile", "done", tiles=3), 1.0)
    assert reader.read(NOW)[0].standing.states == {"done": 2}


def test_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="no run in"):
            RunReader(folder).read(NOW)


def _watched(*arguments: str) -> tuple[int, dict[str, Any], list[tuple[str, list[str]]]]:
    """Run the command in a process that notes whatever it opens, changes or locks."""
    command = [sys.executable, "-c", _WATCHED, "status", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    code, seen = json.loads(done.stderr)
    return code, json.loads(done.stdout), seen


def test_ten_thousand_records_are_opened_once_each_and_nothing_else_happens(tmp_path: Path) -> None:
    opened: dict[int, int] = {}
    for count in (1000, 10_000):
        out = tmp_path / str(count)
        _many(out, count)
        before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
        code, said, seen = _watched(str(out), "--json")
        assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before
        (stage,) = said["stages"]
        assert (code, stage["planned"], stage["done"], stage["left"]) == (0, count + 7, count, 7)
        assert not {name for name, _ in seen} & _LOCKING
        assert not [args for name, args in seen if name in _CHANGING and str(out) in " ".join(args)]
        opens = [args for name, args in seen if name == "open" and args[0].startswith(str(out))]
        assert {args[1] for args in opens} == {"r"}
        opened[count] = len(opens)
    assert opened[10_000] - opened[1000] == 9000, "one more open for one more record"
    assert opened[1000] <= 1010
