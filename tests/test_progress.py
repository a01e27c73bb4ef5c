"""Progress off a terminal: plain lines on standard error, not too many."""

import pytest

from wsi_lmc.progress import ProgressReport


def test_a_line_now_and_then_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 4, every_s=0.0) as progress:
        for number in range(4):
            progress.advance(f"slide {number}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["tile: 1 of 4", "tile: 2 of 4", "tile: 3 of 4"]
    assert lines[1].endswith("slide 1")
    assert "left" in lines[0]


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 1000) as progress:
        for _ in range(1000):
            progress.advance()
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport("tile", 3, quiet=True, every_s=0.0) as progress:
        progress.advance()
        progress.line("text")
    assert capsys.readouterr().err == ""
