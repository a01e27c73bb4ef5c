"""Progress off a terminal: plain lines on standard error, not too many."""

import pytest

from wsi_lmc.progress import ProgressReport
from wsi_lmc.steps.outcome import Outcome


def test_a_line_now_and_then_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 4, every_s=0.0) as progress:
        for number in range(4):
            progress.add(Outcome(f"slide-{number}", "tile", "failed" if number == 1 else "done", seconds=0.1))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["tile: 1 of 4", "tile: 2 of 4", "tile: 3 of 4"]
    assert lines[1].endswith("slide-1 failed")
    assert "1 done, 1 failed, 2 left" in lines[1]
    assert "left" in lines[0]


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 1000) as progress:
        for number in range(1000):
            progress.reach(number + 1)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 3, quiet=True, every_s=0.0) as progress:
        progress.reach(1)
        progress.line("text")
    assert capsys.readouterr().err == ""


def test_steps_have_a_note_and_no_states(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("train", 10, every_s=0.0) as progress:
        progress.reach(4, "loss 1.5")
    said = capsys.readouterr().err
    assert said.startswith("train: 4 of 10, ")
    assert said.endswith(" left, loss 1.5\n")
    assert "done" not in said
