"""A process that takes too long ends itself, whatever holds the interpreter, and the next one is told."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_lmc.errors import SlideError
from wsi_lmc.steps.deadline import TimeLimit, within

HANG = """
import re, sys
from pathlib import Path
from wsi_lmc.steps.deadline import TimeLimit, within
with within(TimeLimit(0.5, Path(sys.argv[1])), "slide"):
    re.fullmatch("(a+)+b", "a" * 60)  # keeps the interpreter for itself
"""


def test_a_process_that_hangs_ends_and_its_successor_does_not_try(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HANG, str(tmp_path)], capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == b""
    assert "Timeout" in (tmp_path / "slide.txt").read_text()
    with pytest.raises(SlideError) as caught, within(TimeLimit(0.5, tmp_path), "slide"):
        pytest.fail("it was tried again")
    assert caught.value.code == "timed_out"
    with within(TimeLimit(60, tmp_path), "another"):
        pass


def test_who_is_in_time_is_left_alone(tmp_path: Path) -> None:
    with within(TimeLimit(0.3, tmp_path), "slide"):
        pass
    with pytest.raises(ZeroDivisionError), within(TimeLimit(0.3, tmp_path), "other"):
        raise ZeroDivisionError
    time.sleep(0.6)  # nothing may go off now
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]
    with within(TimeLimit(0.3, tmp_path), "other"):
        pass
    with within(None, "slide"):
        time.sleep(0.5)
    assert list(tmp_path.iterdir()) == []
