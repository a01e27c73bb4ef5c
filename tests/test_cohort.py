"""Cohorts: which slides are meant, under ids that are safe and unique on every file system."""

import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.cohort import COLUMNS, SlideEntry, find_slides, read_manifest, safe_id, write_manifest
from wsi_lmc.errors import UsageError

SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
ANY_NAME = st.text(max_size=300) | st.text("abcXYZ019._- /\\=+@\n\t", max_size=150)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(*inputs: Path | str) -> list[str]:
    return [entry.path.name for entry in find_slides([str(item) for item in inputs])]


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


@given(ANY_NAME)
def test_every_name_becomes_a_safe_id(name: str) -> None:
    assert SAFE.fullmatch(safe_id(name))


@given(ANY_NAME)
def test_an_id_read_back_stays_what_it_is(name: str) -> None:
    assert safe_id(safe_id(name)) == safe_id(name)


@given(ANY_NAME, ANY_NAME)
def test_two_names_share_an_id_only_as_two_spellings_of_one(first: str, second: str) -> None:
    same = unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
    assert (safe_id(first) == safe_id(second)) == same


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", fullmatch=True))
def test_a_name_that_is_safe_is_kept(name: str) -> None:
    assert safe_id(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TCGA-2V-A95S-01Z-00-DX1.9DFA6FC7", "TCGA-2V-A95S-01Z-00-DX1.9DFA6FC7"),
        ("-x", r"x-[0-9a-f]{8}"),
        ("--help", r"help-[0-9a-f]{8}"),
        (".hidden", r"hidden-[0-9a-f]{8}"),
        ("../../etc", r"_\.\._etc-[0-9a-f]{8}"),
        ("slide 1 (copy)", r"slide_1_copy_-[0-9a-f]{8}"),
        ("two\nlines", r"two_lines-[0-9a-f]{8}"),
        ("Größe", r"Gr_e-[0-9a-f]{8}"),
        ("", r"slide-[0-9a-f]{8}"),
        ("...", r"slide-[0-9a-f]{8}"),
        ("a" * 255, r"a{91}-[0-9a-f]{8}"),
    ],
)
def test_names_met_in_practice(name: str, expected: str) -> None:
    assert re.fullmatch(expected, safe_id(name))


def test_names_that_differ_beyond_the_longest_id_stay_apart() -> None:
    assert safe_id("a" * 254 + "b") != safe_id("a" * 254 + "c")


def test_a_name_that_is_no_utf8_gets_an_id(tmp_path: Path) -> None:
    """Folders unpacked from old archives hold such names; Python shows the bytes as lone surrogates."""
    name = os.fsdecode(b"Gr\xf6\xdfe.svs")
    touch(tmp_path / name)
    assert SAFE.fullmatch(find_slides([str(tmp_path)])[0].slide_id)


def test_a_folder_is_searched_at_all_levels_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path / "b.svs", tmp_path / "site" / "a.TIF", tmp_path / "notes.txt", tmp_path / "noext")
    touch(tmp_path / "._b.svs", tmp_path / ".cache" / "c.svs", tmp_path / "site" / ".d.svs")
    assert found(tmp_path) == ["b.svs", "a.TIF"]


def test_a_hidden_parent_does_not_hide_its_slides(tmp_path: Path) -> None:
    touch(tmp_path / ".scratch" / "a.svs")
    assert found(tmp_path / ".scratch") == ["a.svs"]


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "x" / "a1.svs", tmp_path / "x" / "a2.svs", tmp_path / "y" / "b1.svs", tmp_path / "x" / "._a1.svs")
    assert found(tmp_path / "x" / "*.svs") == ["a1.svs", "a2.svs"]
    assert found(tmp_path / "*" / "?1.svs") == ["a1.svs", "b1.svs"]
    assert found(tmp_path / "x" / ".*.svs") == ["._a1.svs"]
    monkeypatch.chdir(tmp_path / "y")
    assert found("../x/a[2-9].svs", "*.svs") == ["a2.svs", "b1.svs"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    touch(tmp_path / "slide[1].svs", tmp_path / "slide1.svs")
    assert found(tmp_path / "slide[1].svs") == ["slide[1].svs"]


def test_a_file_named_in_three_ways_is_one_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.svs")
    monkeypatch.chdir(tmp_path)
    entries = find_slides(["a.svs", str(tmp_path), str(tmp_path / "*.svs")])
    assert [entry.slide_id for entry in entries] == ["a"]
    assert entries[0].duplicate_of is None


def test_a_link_to_itself_is_kept_to_fail_as_a_slide(tmp_path: Path) -> None:
    (tmp_path / "circle.svs").symlink_to("circle.svs")
    touch(tmp_path / "a.svs")
    assert found(tmp_path) == ["a.svs", "circle.svs"]


def test_a_missing_file_is_kept_to_fail_as_a_slide(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    assert found(tmp_path / "gone.svs", tmp_path / "a.svs") == ["gone.svs", "a.svs"]


@pytest.mark.parametrize("names", [(), ("notes.txt",), (".hidden.svs",)])
def test_no_slides_is_a_usage_error(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in names))
    with pytest.raises(UsageError, match="no slides in"):
        find_slides([str(tmp_path)])
    with pytest.raises(UsageError, match="no slides in"):
        find_slides([str(tmp_path / "*.svs")])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("site1/a.svs", "site2/a.svs"),
        ("site1/Slide.svs", "site2/slide.svs"),
        ("site1/a.svs", "site1/a.tif"),
        ("site1/caf\u00e9.svs", "site2/cafe\u0301.svs"),
    ],
)
def test_coinciding_names_are_marked_and_get_ids_of_their_own(first: str, second: str, tmp_path: Path) -> None:
    touch(tmp_path / first, tmp_path / second, tmp_path / "other.svs")
    entries = find_slides([str(tmp_path)])
    marked = [entry for entry in entries if entry.duplicate_of]
    assert {entry.path for entry in marked} == {tmp_path / first, tmp_path / second}
    assert len({entry.slide_id.casefold() for entry in entries}) == 3
    assert all(SAFE.fullmatch(entry.slide_id) for entry in entries)
    assert all(entry.slide_id.startswith(entry.duplicate_of or "?") for entry in marked)


def test_long_names_that_coincide_still_get_legal_ids(tmp_path: Path) -> None:
    name = "a" * 100 + ".svs"
    touch(tmp_path / "x" / name, tmp_path / "y" / name)
    entries = find_slides([str(tmp_path)])
    assert len({entry.slide_id for entry in entries}) == 2
    assert all(safe_id(entry.slide_id) == entry.slide_id for entry in entries)


def test_a_manifest_gives_slides_their_properties(tmp_path: Path) -> None:
    """Saved by Excel: a byte order mark, CRLF, quoted commas, columns in another order, one that we do not know."""
    text = (
        "label,slide,mpp,scanner,slide_id,patient\r\n"
        '"tumor, high","x/a, b.svs","0,5",AT2,slide-1,P 7\r\n'
        " normal , y/c.svs ,,,,\r\n"
    )
    path = manifest(tmp_path, text, "utf-8-sig")
    first, second = read_manifest(path)
    assert first == SlideEntry(tmp_path / "x" / "a, b.svs", "slide-1", "0,5", "P 7", "", "tumor, high")
    assert second == SlideEntry(tmp_path / "y" / "c.svs", "c", None, "", "", "normal")
    assert find_slides([str(path)]) == [first, second]


def test_paths_in_a_manifest_are_relative_to_it_and_may_be_absolute(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "b.svs"
    first, second = read_manifest(manifest(tmp_path, f"slide\n../a.svs\n{elsewhere}\n"))
    assert first.path.resolve() == (tmp_path.parent / "a.svs").resolve()
    assert second.path == elsewhere


def test_ids_in_a_manifest_are_made_safe_and_checked_for_coincidence(tmp_path: Path) -> None:
    path = manifest(tmp_path, "slide,slide_id\na.svs,../x\nb.svs,same\nc.svs,SAME\n")
    entries = find_slides([str(path)])
    assert all(SAFE.fullmatch(entry.slide_id) for entry in entries)
    assert [entry.duplicate_of for entry in entries] == [None, "same", "SAME"]


def test_rows_with_too_many_or_too_few_cells(tmp_path: Path) -> None:
    first, second = read_manifest(manifest(tmp_path, "slide,site,label\na.svs\nb.svs,s,l,too,many\n"))
    assert (first.site, first.label) == ("", "")
    assert (second.site, second.label) == ("s", "l")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,mpp\na.svs,0.5\n", "columns file, mpp.*expected a column slide"),
        ("", "columns none"),
        ("slide;mpp\na.svs;0.5\n", "columns slide;mpp"),
        ("slide\na.svs\na.svs\n", "'a.svs' stands in several rows"),
        ("slide,site\n,x\n", "is empty"),
        ("slide,slide\na.svs,b.svs\n", "columns slide, slide.*expected a column slide"),
        ("slide\na\0.svs\n", "zero bytes"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_a_usage_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_manifest(manifest(tmp_path, text))


def test_a_manifest_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="UTF-8"):
        read_manifest(manifest(tmp_path, "slide,label\na.svs,gutartig ä\n", "latin-1"))
    with pytest.raises(UsageError, match="cannot read"):
        read_manifest(tmp_path)


CELL = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), min_size=1, max_size=4))
def test_a_manifest_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("manifest", numbered=True)
    entries = [
        SlideEntry(folder / f'{row}, "x"\n.svs', f"id-{row}", mpp or None, patient, site, label)
        for row, (mpp, patient, site, label) in enumerate(cells)
    ]
    write_manifest(folder / "m.csv", entries)
    assert read_manifest(folder / "m.csv") == entries
    assert (folder / "m.csv").read_text().startswith(",".join(COLUMNS))


def test_a_written_manifest_finds_its_slides_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder's manifest is read again by every later run: paths given relative must not drift."""
    touch(tmp_path / "slides" / "a.svs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    entries = find_slides(["slides"])
    for _ in range(2):
        write_manifest(tmp_path / "run" / "manifest.csv", entries)
        entries = read_manifest(tmp_path / "run" / "manifest.csv")
    assert [entry.path for entry in entries] == [tmp_path / "slides" / "a.svs"]
