"""Pseudonyms: every slide has exactly one, or nothing begins."""

from pathlib import Path

import pytest

from wsi_lmc.cohort import SlideEntry, find_slides, read_manifest, write_manifest
from wsi_lmc.errors import UsageError
from wsi_lmc.pseudonyms import find_named_slides, give_pseudonyms


def slides(folder: Path, *names: str) -> list[SlideEntry]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return find_slides([str(folder)])


def table(folder: Path, text: str) -> Path:
    path = folder / "map.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_slides_get_the_ids_of_the_map_by_name_or_by_path(tmp_path: Path) -> None:
    entries = slides(tmp_path / "in", "Doe.svs", "x/Roe.svs", "y/Roe.svs")
    assert entries[1].duplicate_of == "Roe"
    path = table(tmp_path, "slide,slide_id\nDoe.svs,s1\nin/x/Roe.svs,s2\nin/y/Roe.svs,s3\nnobody.svs,s4\n")
    hidden = give_pseudonyms(entries, path)
    assert [(entry.path.name, entry.slide_id) for entry in hidden] == [
        ("Doe.svs", "s1"), ("Roe.svs", "s2"), ("Roe.svs", "s3"),
    ]  # fmt: skip
    assert all(entry.hidden and entry.duplicate_of is None for entry in hidden)


def test_names_are_the_same_in_both_of_their_unicode_forms(tmp_path: Path) -> None:
    entries = slides(tmp_path / "in", "Mu\u0308ller.svs")
    assert give_pseudonyms(entries, table(tmp_path, "slide,slide_id\nM\u00fcller.svs,s1\n"))[0].slide_id == "s1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide,slide_id\na.svs,s1\n", "no row for 'b.svs'"),
        ("slide,slide_id\n", "no row for 'a.svs', 'b.svs'"),
        ("", "columns none"),
        ("slide,id\na.svs,s1\n", "a column slide_id"),
        ("slide,slide_id\na.svs,s1\nb.svs,s1\n", "'s1' stands in lines 2 and 3"),
        ("slide,slide_id\na.svs,S1\nb.svs,s1\n", "'s1' stands in lines 2 and 3"),
        ("slide,slide_id\na.svs,s1\na.svs,s2\nb.svs,s3\n", "'a.svs' stands in lines 2 and 3"),
        ("slide,slide_id\na.svs,s1\nb.svs,../s2\n", r"line 3: slide_id '\.\./s2'"),
        ("slide,slide_id\na.svs,s 1\nb.svs,s2\n", "line 2: slide_id 's 1'"),
        ("slide,slide_id\na.svs,-rf\nb.svs,s2\n", "line 2"),
        ("slide,slide_id\na.svs,\nb.svs,s2\n", "line 2: slide_id is empty"),
        ("slide,slide_id\n,s1\nb.svs,s2\n", "line 2: slide is empty"),
        ("slide,slide_id\na.svs,s1\nin/a.svs,s3\nb.svs,s2\n", "lines 3 and 2 of the pseudonyms both fit"),
    ],
)
def test_a_map_that_does_not_name_every_slide_once_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        give_pseudonyms(slides(tmp_path / "in", "a.svs", "b.svs"), table(tmp_path, text))


def test_a_name_that_several_slides_have_is_not_enough(tmp_path: Path) -> None:
    entries = slides(tmp_path / "in", "x/a.svs", "y/a.svs")
    with pytest.raises(UsageError, match=r"line 2: several slides are called 'a.svs'"):
        give_pseudonyms(entries, table(tmp_path, "slide,slide_id\na.svs,s1\n"))


def test_patients_need_pseudonyms_too(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide,patient,label\nin/a.svs,Jane Doe,tumor\n")
    entries = find_slides([str(manifest)])
    with pytest.raises(UsageError, match="no column patient"):
        give_pseudonyms(entries, table(tmp_path, "slide,slide_id\na.svs,s1\n"))
    (hidden,) = give_pseudonyms(entries, table(tmp_path, "slide,slide_id,patient\na.svs,s1,p1\n"))
    assert (hidden.patient, hidden.label) == ("p1", "tumor")


def test_the_manifest_of_hidden_slides_names_no_file_and_finds_none(tmp_path: Path) -> None:
    entries = give_pseudonyms(slides(tmp_path / "in", "Doe.svs"), table(tmp_path, "slide,slide_id\nDoe.svs,s1\n"))
    for _ in range(2):
        write_manifest(tmp_path / "m.csv", entries)
        assert (tmp_path / "m.csv").read_text().splitlines()[1] == "pseudonym:s1,,,,,s1"
        entries = read_manifest(tmp_path / "m.csv")
    assert entries[0].hidden
    with pytest.raises(UsageError, match="pseudonyms only"):
        find_slides([str(tmp_path / "m.csv")])


def test_a_map_in_the_output_is_refused(tmp_path: Path) -> None:
    slides(tmp_path / "in", "Doe.svs")
    (tmp_path / "out").mkdir()
    path = table(tmp_path / "out", "slide,slide_id\nDoe.svs,s1\n")
    with pytest.raises(UsageError, match="lies in the output"):
        find_named_slides([str(tmp_path / "in")], path, tmp_path / "out")


def test_without_a_map_nothing_is_hidden(tmp_path: Path) -> None:
    entries = slides(tmp_path / "in", "Doe.svs")
    assert find_named_slides([str(tmp_path / "in")], None, tmp_path / "out") == entries
