"""Which images are packed, and what is stated of them: nothing is guessed, contradictions are refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists import (
    ImageEntry,
    ImageGroup,
    ImageInputs,
    are_at_hand,
    find_images,
    group_images,
    groups_of,
    hash_images,
    list_path,
    parse_columns,
    read_list,
    remarks,
    without_repeats,
    write_list,
)
from wsi_lmc.threads import Threads


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 52, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())  # its kind does not matter here
    return path


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_class_per_folder(tmp_path: Path) -> None:
    for number, name in enumerate(["rad/tumour/1.png", "rad/normal/2.JPG", "uni/tumour/3.tif", "uni/.x/4.png"]):
        image(tmp_path / name, number)
    (tmp_path / "rad/tumour/notes.txt").write_text("no image")
    folders = [tmp_path / "rad", tmp_path / "uni"]
    found, notes = find_images(ImageInputs(folders, labels_from="folder"))
    assert [(each.path.name, each.site, each.label, each.group, each.alone) for each in found] == [
        ("2.JPG", "rad", "normal", "normal/2.JPG", True),
        ("1.png", "rad", "tumour", "tumour/1.png", True),
        ("3.tif", "uni", "tumour", "tumour/3.tif", True),
    ]
    assert not notes
    assert remarks(found) == ["no image has a group: each is a group of its own, and splits and intervals go by group"]
    (one,), _ = find_images(ImageInputs(folders[1:]))
    assert (one.site, one.label) == ("", "")
    (one,), _ = find_images(ImageInputs(folders[1:], site="utrecht"))
    assert one.site == "utrecht"


def test_a_table_with_names_of_its_own(tmp_path: Path) -> None:
    image(tmp_path / "data/a.png", 1)
    image(tmp_path / "data/b.png", 2)
    image(tmp_path / "data/mask.png", 3)
    manifest = table(
        tmp_path / "m.csv",
        "file,domain,label,case,mpp,size",
        "data/a.png,uk,benign,7,0.5,1",
        'data/b.png,uk,,,"0,25",2',
    )
    columns = parse_columns(["site=domain,group=case"])
    found, notes = find_images(ImageInputs(manifest=manifest, columns=columns))
    assert [(each.site, each.label, each.group, each.mpp, each.alone) for each in found] == [
        ("uk", "benign", "7", 0.5, False),
        ("uk", "", "data/b.png", 0.25, True),
    ]
    assert not notes
    found, notes = find_images(ImageInputs([tmp_path / "data"], manifest, columns))
    assert len(found) == 2
    assert notes == ["1 images of the folders have no row in m.csv, and are left out"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a.png,x", "a.png,y"], "line 3: a.png again"),
        (["a.svs,x"], "a.svs is no image"),
        ([",x"], "line 2: no file"),
        (["a.png,x,9000"], "mpp '9000'"),
        (["a.png,x,wide"], "mpp 'wide'"),
    ],
)
def test_rows_that_cannot_be_taken(tmp_path: Path, rows: list[str], said: str) -> None:
    manifest = table(tmp_path / "m.csv", "file,site,mpp", *rows)
    with pytest.raises(UsageError, match=said):
        find_images(ImageInputs(manifest=manifest))


def test_statements_that_cannot_be_taken(tmp_path: Path) -> None:
    image(tmp_path / "a/s_1.png", 1)
    image(tmp_path / "b/a/s_1.png", 2)
    folder, manifest = tmp_path / "a", table(tmp_path / "m.csv", "file,site", "a/s_1.png,x")
    cases = [
        (ImageInputs(), "neither"),
        (ImageInputs([tmp_path / "none"]), "no folder"),
        (ImageInputs([folder, tmp_path / "b/a"]), "several folders called a"),
        (ImageInputs([folder], group_pattern="("), "group-pattern"),
        (ImageInputs([folder], group_pattern="s_"), "group-pattern"),
        (ImageInputs([folder], group_pattern="(t)_"), "no group in 's_1.png'"),
        (ImageInputs(manifest=manifest, columns={"site": "domain"}), "a column domain"),
        (ImageInputs([tmp_path, folder]), "named twice"),
        (ImageInputs([tmp_path / "b"], manifest), "no images"),
    ]
    for inputs, said in cases:
        with pytest.raises(UsageError, match=said):
            find_images(inputs)
    for text in ("site", "size=x", "site=", "site=a,site=b"):
        with pytest.raises(UsageError, match="--columns"):
            parse_columns([text])


def test_groups_by_pattern_and_images_alone_keep_apart(tmp_path: Path) -> None:
    for number, name in enumerate(["x/p1_1.png", "x/p1_2.png", "y/p1_1.png"]):
        image(tmp_path / name, number)
    found, _ = find_images(ImageInputs([tmp_path], group_pattern=r"(p\d)_"))
    assert [each.group for each in found] == ["p1"] * 3
    assert not any(each.alone for each in found)
    folders = [tmp_path / "x", tmp_path / "y"]
    alone, _ = find_images(ImageInputs(folders, site="one"))
    assert len({each.group for each in alone}) == 3, "two files of one name are two groups"


def test_the_same_bytes_count_once_or_are_refused(tmp_path: Path) -> None:
    first, again = image(tmp_path / "a.png", 1), image(tmp_path / "b.png", 1)

    def entries(**other: object) -> list[ImageEntry]:
        one = ImageEntry(first, "s", "g", "benign")
        values = {"path": again, "site": "s", "group": "g", "label": "benign", **other}
        with Threads(2) as threads:
            return hash_images([one, ImageEntry(**values)], threads)

    kept, notes = without_repeats(entries())
    assert [each.path for each in kept] == [first]
    assert notes == ["1 images are there twice, byte by byte: each is kept once"]
    kept, _ = without_repeats(entries(group="b.png", alone=True)[::-1])
    assert [(each.path, each.group) for each in kept] == [(first, "g")], "who has a group is kept"
    for other in ({"label": "malignant"}, {"site": "t"}, {"group": "h"}):
        with pytest.raises(UsageError, match=f"same image, with {next(iter(other))}"):
            without_repeats(entries(**other))
    unreadable = hash_images([ImageEntry(tmp_path / "none"), ImageEntry(tmp_path)], Threads())
    assert [each.sha256 for each in unreadable] == ["", ""]
    assert without_repeats(unreadable) == (unreadable, [])


def test_what_nobody_states_is_said() -> None:
    entries = [ImageEntry(Path("a"), "s", "1", "x"), ImageEntry(Path("b"), "t", "1"), ImageEntry(Path("c"), "", "2")]
    assert remarks(entries) == [
        "1 of 3 images have no site",
        "2 of 3 images have no label",
        "1 groups stand at several sites (1): they count as the same patients",
    ]


def test_ids_are_safe_told_apart_and_stay(tmp_path: Path) -> None:
    def ids(*of: tuple[str, str], known: list[SlideEntry] | None = None) -> list[str]:
        return [group.slide_id for group in group_images([ImageEntry(Path("a"), *each) for each in of], known or [])]

    assert ids(("uk", "7"), ("", "x"), ("uk", "7")) == ["uk-7", "x"]
    (odd,) = ids(("u k", "../7"))
    assert odd.startswith("u_k-.._7-")
    first, second = ids(("a-b", "c"), ("a", "b-c"))
    assert first != second
    assert first.startswith("a-b-c-")
    assert len({each.casefold() for each in ids(("a", "B"), ("a", "b"))}) == 2
    slide = SlideEntry(tmp_path / "uk-7.svs", "uk-7")
    assert ids(("uk", "7"), known=[slide])[0].startswith("uk-7-"), "a slide of the run keeps its id"
    before = SlideEntry(list_path(tmp_path, "old"), "old", patient="7", site="uk")
    assert ids(("uk", "7"), known=[before]) == ["old"]


def test_a_list_reads_back(tmp_path: Path) -> None:
    images = (
        ImageEntry(image(tmp_path / "=odd, name\udce4.png", 1), "s", "g", "=x", 0.25, "abc"),
        ImageEntry(tmp_path / "gone.png", "s", "g"),
    )
    group = ImageGroup("s-g", "s", "g", images)
    assert group.entry(tmp_path).label == ""
    write_list(tmp_path, group)
    path = list_path(tmp_path, "s-g")
    before = path.stat().st_mtime_ns
    write_list(tmp_path, group)
    assert path.stat().st_mtime_ns == before
    (again,) = groups_of(tmp_path, {"s-g": group.entry(tmp_path)}, ["s-g"])
    assert again == group
    assert not are_at_hand(path)
    assert not are_at_hand(tmp_path / "none.csv")
    path.write_text("file,label,mpp,sha256\nx,,wide,\n")
    with pytest.raises(UsageError, match="line 2"):
        read_list(path)
