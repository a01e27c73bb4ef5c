"""What is said of a slide: never a folder, and nothing that betrays who hides behind a pseudonym."""

from pathlib import Path

import pytest

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.discretion import Discretion, told_discreetly, told_mask
from wsi_lmc.steps.outcome import Outcome


def _entry(path: str, hidden: bool) -> SlideEntry:
    return SlideEntry(Path(path), "s1", hidden=hidden)


@pytest.mark.parametrize("path", ["/ward 3/Jane Doe/Doe^Jane.svs", "ward 3/Doe^Jane.svs", "/x/Do'e\n\u00e4.svs"])
def test_messages_about_a_hidden_slide_do_not_name_its_file(path: str) -> None:
    say = Discretion(_entry(path, hidden=True), [Path("/masks/Jane Doe/outline-of-Jane.geojson")])
    name = Path(path).name
    said = say(
        f"{OSError(13, 'Permission denied', path)}; {path}; no file {name}; {Path(path).stem} again; "
        f"{name!r}; {Path(path).absolute()}; no outline outline-of-Jane.geojson in /masks/Jane Doe/"
    )
    for part in (name, Path(path).stem, "Jane", "ward", repr(name)[1:-1]):
        assert part not in said
    assert said.count("s1") == 7


def test_messages_about_other_slides_keep_the_name_but_no_folder() -> None:
    say = Discretion(_entry("/ward 3/Jane Doe/a1.svs", hidden=False))
    assert say("cannot read '/ward 3/Jane Doe/a1.svs'") == "cannot read 'a1.svs'"


def test_a_short_name_does_not_garble_other_words() -> None:
    say = Discretion(_entry("s/tile.svs", hidden=True))
    assert say("tiles/x.zarr of s/tile.svs, 4 tiles") == "tiles/x.zarr of s1, 4 tiles"


def test_a_bug_of_a_hidden_slide_does_not_quote_the_file() -> None:
    trace = "Traceback:\n  File \"x.py\", line 3\n    raise KeyError('kept')\nKeyError: 'Jane Doe'\n"
    told = Discretion(_entry("a1.svs", hidden=True)).of_bug(trace)
    assert "Jane" not in told
    assert "raise KeyError('kept')" in told
    assert Discretion(_entry("a1.svs", hidden=False)).of_bug(trace) == trace


def test_outcomes_say_no_more_and_those_of_others_are_left_alone(tmp_path: Path) -> None:
    mask = tmp_path / "Jane.geojson"
    failed = Outcome("s1", "tile", "failed", "bad_mask", "no outline Jane.geojson for Doe.svs", "See Doe.svs.")
    bug = Outcome("s1", "tile", "failed", "internal", "KeyError: 'Jane'", "", detail="KeyError: 'Jane'")
    other = Outcome("s2", "tile", "failed", "missing", "no file Doe.svs", "Check.")
    told = list(told_discreetly(iter([failed, bug, other]), [_entry("/x/Doe.svs", hidden=True)], {"s1": mask}))
    assert (told[0].reason, told[0].remedy) == ("no outline s1 for s1", "See s1.")
    assert (told[1].reason, told[1].detail) == ("KeyError: '...'", "KeyError: '...'")
    assert told[2] == other


def test_where_outlines_lie_is_told_of_slides_with_their_own_names_only(tmp_path: Path) -> None:
    assert told_mask(tmp_path, [_entry("/x/a.svs", hidden=False)]) == str(tmp_path.resolve())
    assert told_mask(tmp_path, [_entry("/x/a.svs", hidden=True)]) is None
    assert told_mask(None, []) is None
