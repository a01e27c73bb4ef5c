"""Readers of published annotations: the real files where they are at hand, and files that are wrong or mean harm."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from wsi_lmc.annotations import (
    CODINGS,
    HARD_NEGATIVE,
    MITOTIC_FIGURE,
    RADBOUD,
    UTRECHT,
    Groups,
    camelyon16_site,
    midog2021_scanner,
    read_asap,
    read_grades,
    read_limited,
    read_midog,
    read_midogpp_slides,
    read_ncrf,
    read_ncrf_centres,
    read_pathorob,
    read_reference,
    read_sicap_partition,
    read_stages,
)
from wsi_lmc.errors import UsageError

_HEAD = '<?xml version="1.0"?>\n'
_BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
_OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


def _asap(*outlines: tuple[str, str, list[tuple[float, float]]]) -> str:
    """ASAP's XML of outlines: name, group, corners."""
    parts = [
        f'<Annotation Name="{name}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(corners))
        + "</Coordinates></Annotation>"
        for name, group, corners in outlines
    ]
    return f"{_HEAD}<ASAP_Annotations><Annotations>{''.join(parts)}</Annotations></ASAP_Annotations>"


_TRIANGLE = [(10.0, 20.0), (40.0, 25.5), (30.0, 90.0)]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_groups_say_what_is_lesion_and_what_is_cut_out(tmp_path: Path) -> None:
    corners = {group: [(x + shift, y) for x, y in _TRIANGLE] for shift, group in enumerate(["Tumor", "_0", "_1", "_2"])}
    path = _write(tmp_path / "a.xml", _asap(*((f"n{group}", group, points) for group, points in corners.items())))
    annotation = read_asap(path)
    assert [region.name for region in annotation.lesions] == ["nTumor", "n_0", "n_1"]
    assert [region.name for region in annotation.excluded] == ["n_2"]
    np.testing.assert_array_equal(annotation.excluded[0].points, corners["_2"])
    assert annotation.dropped == 0


def test_corners_follow_their_order_and_stray_clicks_are_counted(tmp_path: Path) -> None:
    text = _asap(("a", "Tumor", _TRIANGLE), ("click", "Tumor", [(1.0, 2.0)]), ("line", "_2", _TRIANGLE[:2]))
    swapped = text.replace('Order="0"', 'Order="9"', 1)
    annotation = read_asap(_write(tmp_path / "a.xml", swapped))
    np.testing.assert_array_equal(annotation.lesions[0].points, [*_TRIANGLE[1:], _TRIANGLE[0]])
    assert (annotation.dropped, len(annotation.lesions), len(annotation.excluded)) == (2, 1, 0)


def test_an_unknown_group_is_an_error_until_somebody_says_what_it_means(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.xml", _asap(("a", "Tumor", _TRIANGLE), ("b", "Necrosis", _TRIANGLE)))
    with pytest.raises(UsageError, match="group 'Necrosis'"):
        read_asap(path)
    assert len(read_asap(path, Groups(("Tumor",), (), ("Necrosis",))).lesions) == 1
    assert len(read_asap(path, Groups(("Tumor",), ("Necrosis",))).excluded) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no element found"),
        ("plain text", "syntax error"),
        (_asap(("a", "Tumor", _TRIANGLE))[:-30], "no element found|unclosed"),
        (f"{_HEAD}<html><Annotations/></html>", "the outermost element is 'html'"),
        (f"{_HEAD}<ASAP_Annotations/>", "no element Annotations"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace('X="40.0"', 'X="forty"'), "X = 'forty'"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace('X="40.0"', 'X="nan"'), "lies on no slide"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace('X="40.0"', 'X="1e300"'), "lies on no slide"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace(' Y="25.5"', ""), "without Y"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace('Order="1"', 'Order="0"'), "two corners of one order"),
        (_asap(("a", "Tumor", _TRIANGLE)).replace("Polygon", "Blob"), "type 'Blob'"),
        (f"{_HEAD}{_BOMB}<ASAP_Annotations>&c;</ASAP_Annotations>", "could harm"),
        (f"{_HEAD}{_OUTSIDE}<ASAP_Annotations>&x;</ASAP_Annotations>", "could harm"),
        (f'{_HEAD}<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><ASAP_Annotations/>', "could harm"),
    ],
)
def test_what_is_no_asap_or_means_harm_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        read_asap(_write(tmp_path / "a.xml", text))
    assert "a.xml" in raised.value.found
    assert "ASAP" in raised.value.expected


def test_files_are_read_with_a_limit(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.xml", "x" * 1000)
    assert len(read_limited(path, 1000)) == 1000
    with pytest.raises(UsageError, match="more than 999 bytes"):
        read_limited(path, 999)
    with pytest.raises(UsageError, match="cannot read"):
        read_limited(tmp_path / "none.xml")


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_ncrf, "[]"),
        (read_ncrf, "{"),
        (read_ncrf, '{"positive": []}'),
        (read_ncrf, '{"positive": [{"name": "_0"}], "negative": []}'),
        (read_ncrf, '{"positive": [{"name": "_0", "vertices": [[1, 2], [3], [4, 5]]}], "negative": []}'),
        (read_ncrf, "[" * 100_000),
        (read_ncrf_centres, "Tumor_001,1,2\nTumor_001,1"),
        (read_midog, '{"images": [], "annotations": []}'),
        (read_reference, "test_001,Tumor,IDC,Macro\ntest_002,Cancer,IDC,Macro"),
        (read_stages, "patient,stage\npatient_000_node_0.tif,huge\n"),
        (read_pathorob, "subset,slide_id,patch_id,biological_class,medical_center\na,b,c,d,e\n"),
        (read_midogpp_slides, "Slide,Dataset\n1,train\n"),
        (read_sicap_partition, "image_name,NC,G3,G4,G5\na.jpg,1,1,0,0\n"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, read: Callable[[Path], object], text: str) -> None:
    with pytest.raises(UsageError, match=r"file\.x"):
        read(_write(tmp_path / "file.x", text))


def _midog(box: list[float], category: int = 1, image: int = 7) -> dict[str, object]:
    return {
        "images": [{"id": 7, "file_name": "007.tiff", "width": 300, "height": 200}],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}],
        "annotations": [{"id": 1, "bbox": box, "category_id": category, "image_id": image}],
    }


def test_boxes_are_corners_and_not_width_and_height(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.json", json.dumps(_midog([100, 40, 150, 90.5], 2)))
    (image,) = read_midog(path)
    np.testing.assert_array_equal(image.centres, [[125.0, 65.25]])
    assert (image.labels, image.width, image.height) == ((HARD_NEGATIVE,), 300, 200)
    for wrong in (_midog([100, 40, 50, 50]), _midog([1, 2, 51, 52], 3), _midog([1, 2, 51, 52], image=8)):
        with pytest.raises(UsageError, match="x1, y1, x2, y2"):
            read_midog(_write(tmp_path / "w.json", json.dumps(wrong)))
    coco = _midog([100, 40, 50, 50])
    with pytest.raises(UsageError, match="COCO"):
        read_midog(_write(tmp_path / "c.json", json.dumps(coco)))


def test_scanners_go_by_the_number_of_the_file() -> None:
    names = ["001.tiff", "050.tiff", "051.tiff", "100.tif", "101.tiff", "150.tiff", "151.tiff", "200.tiff"]
    scanners = ["Hamamatsu XR"] * 2 + ["Hamamatsu S360"] * 2 + ["Aperio CS2"] * 2 + ["Leica GT450"] * 2
    assert [midog2021_scanner(name) for name in names] == scanners
    assert [midog2021_scanner(name) for name in ("000.tiff", "201.tiff", "1.tiff", "001.png")] == [""] * 4


def test_sites_of_camelyon16_go_by_number() -> None:
    slides = [
        "normal_001",
        "normal_100",
        "tumor_001",
        "Tumor_070",
        "normal_101",
        "normal_160",
        "tumor_071",
        "tumor_111",
    ]
    assert [camelyon16_site(slide) for slide in slides] == [RADBOUD] * 4 + [UTRECHT] * 4
    assert {camelyon16_site(slide) for slide in ("test_001", "normal_161", "tumor_112", "normal_000", "x")} == {""}


def test_reference_with_and_without_names_of_columns(tmp_path: Path) -> None:
    rows = "test_001,Tumor,IDC,Macro\ntest_002.tif,Normal,DCIS,None\n"
    for text in (rows, f"image,type,carcinoma,size\n{rows}"):
        first, second = read_reference(_write(tmp_path / "reference.csv", text))
        assert (first.slide_id, first.tumour, first.metastasis) == ("test_001", True, "Macro")
        assert (second.slide_id, second.tumour, second.carcinoma) == ("test_002", False, "DCIS")


def test_masks_hold_the_values_of_their_coding_and_no_others(tmp_path: Path) -> None:
    values = np.tile(np.asarray([[0, 1, 2], [3, 4, 5]], np.uint8), (4, 3))
    path = tmp_path / "m.png"
    cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(read_grades(path, CODINGS["panda_radboud"]), values)
    with pytest.raises(UsageError, match="holds the values 2"):
        read_grades(path, CODINGS["gleason2019"])
    cv2.imwrite(str(path), np.dstack([np.zeros_like(values)] * 2 + [values]))  # the red channel, as PANDA has it
    np.testing.assert_array_equal(read_grades(path, CODINGS["panda_radboud"]), values)
    cv2.imwrite(str(path), np.dstack([values] * 3))
    np.testing.assert_array_equal(read_grades(path, CODINGS["panda_radboud"]), values)
    cv2.imwrite(str(path), np.dstack([values, np.zeros_like(values), values]))
    with pytest.raises(UsageError, match="picture in colours"):
        read_grades(path, CODINGS["panda_radboud"])
    cv2.imwrite(str(path), values.astype(np.uint16))
    with pytest.raises(UsageError, match="uint16"):
        read_grades(path, CODINGS["panda_radboud"])
    with pytest.raises(UsageError, match="no such file"):
        read_grades(tmp_path / "none.png", CODINGS["sicapv2"])
    with pytest.raises(UsageError, match=r"no image number 0|cannot be read"):
        read_grades(_write(tmp_path / "text.png", "no image"), CODINGS["sicapv2"])


def test_a_level_of_a_mask_in_a_pyramid_is_read(tmp_path: Path) -> None:
    levels = [np.full((64, 96), 3, np.uint8), np.full((32, 48), 4, np.uint8)]
    cv2.imwritemulti(str(tmp_path / "m.tiff"), levels)
    for page, level in enumerate(levels):
        np.testing.assert_array_equal(read_grades(tmp_path / "m.tiff", CODINGS["panda_radboud"], page), level)
    with pytest.raises(UsageError, match=r"no image number 2|cannot be read"):
        read_grades(tmp_path / "m.tiff", CODINGS["panda_radboud"], 2)


def test_partitions_of_sicap_name_one_class_an_image(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.csv", "image_name,NC,G3,G4,G5,G4C\na.jpg,1,0,0,0,0\nb.jpg,0,0,1,0,1\n")
    assert read_sicap_partition(path) == {"a.jpg": "benign", "b.jpg": "gleason 4"}


@pytest.fixture
def published(test_data: Path) -> Path:
    return test_data / "annotations"


@pytest.mark.real
def test_the_real_lesions_of_camelyon17(published: Path) -> None:
    path = published / "camelyon17_patient_004_node_4.xml"
    annotation = read_asap(path)
    outlines = ElementTree.parse(path).getroot().findall("Annotations/Annotation")  # noqa: S314  the same file
    assert len(annotation.lesions) == len(outlines) > 1
    assert (annotation.excluded, annotation.dropped) == ((), 0)
    for region, outline in zip(annotation.lesions, outlines, strict=True):
        corners = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in outline.findall("Coordinates/Coordinate")]
        np.testing.assert_array_equal(region.points, corners)


@pytest.mark.real
def test_the_real_lesions_of_camelyon16(published: Path) -> None:
    paths = [*(published / "ncrf_camelyon16_json").glob("*.json"), published / "camelyon16_Tumor_001.ncrf.json"]
    assert len(paths) == 9
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        annotation = read_ncrf(path)
        assert len(annotation.lesions) == len(document["positive"]) >= 1
        assert len(annotation.excluded) == len(document["negative"])
        for region, outline in zip(annotation.lesions, document["positive"], strict=True):
            np.testing.assert_array_equal(region.points, outline["vertices"])


@pytest.mark.real
def test_the_real_centres_of_ncrf(published: Path) -> None:
    path = published / "ncrf_coords_tumor_valid.txt"
    centres = read_ncrf_centres(path)
    slides = Counter(re.findall(r"^(\w+),", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert {slide: len(found) for slide, found in centres.items()} == slides
    assert sum(slides.values()) == 20_000
    assert centres["Tumor_106"][0].tolist() == [35081, 33425]


@pytest.mark.real
def test_the_real_tables_of_camelyon(published: Path) -> None:
    slides, patients = read_stages(published / "camelyon17_stage_labels.csv")
    assert (len(slides), len(patients)) == (500, 100)
    assert Counter(slides.values()) == {"negative": 313, "macro": 88, "micro": 64, "itc": 35}
    patches = read_pathorob(published / "pathorob_camelyon_reduced.csv")
    with (published / "pathorob_camelyon_reduced.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [[patch.slide_id, str(patch.patch_id), patch.label, patch.centre] for patch in patches] == [
        row[1:] for row in rows
    ]
    sites = {patch.slide_id: {"RUMC": RADBOUD, "UMCU": UTRECHT}[patch.centre] for patch in patches}
    known = {slide: site for slide, site in sites.items() if not slide.startswith("test")}
    assert len(known) == 47
    assert {slide: camelyon16_site(slide) for slide in known} == known


@pytest.mark.real
@pytest.mark.parametrize("name", ["MIDOG2021.json", "MIDOGpp.json"])
def test_the_real_figures_of_midog(published: Path, name: str) -> None:
    document = json.loads((published / name).read_text(encoding="utf-8"))
    images = read_midog(published / name)
    assert [image.file_name for image in images] == [image["file_name"] for image in document["images"]]
    kinds = Counter(annotation["category_id"] for annotation in document["annotations"])
    labels = Counter(label for image in images for label in image.labels)
    assert labels == {MITOTIC_FIGURE: kinds[1], HARD_NEGATIVE: kinds[2]}
    by_id = {image["id"]: read for image, read in zip(document["images"], images, strict=True)}
    seen: Counter[int] = Counter()
    for annotation in document["annotations"]:
        own = by_id[annotation["image_id"]]
        centre = own.centres[seen[annotation["image_id"]]]
        np.testing.assert_array_equal(centre, np.asarray(annotation["bbox"]).reshape(2, 2).mean(axis=0))
        assert (
            own.labels[seen[annotation["image_id"]]] == {1: MITOTIC_FIGURE, 2: HARD_NEGATIVE}[annotation["category_id"]]
        )
        seen[annotation["image_id"]] += 1


@pytest.mark.real
def test_the_real_scanners_of_midog(published: Path) -> None:
    """What is published is a little more than the paper's counts (665 + 893, 562 + 1,029, 438 + 704)."""
    counts = Counter(
        (midog2021_scanner(image.file_name), label)
        for image in read_midog(published / "MIDOG2021.json")
        for label in image.labels
    )
    assert counts == {
        ("Aperio CS2", MITOTIC_FIGURE): 688, ("Aperio CS2", HARD_NEGATIVE): 924,
        ("Hamamatsu S360", MITOTIC_FIGURE): 582, ("Hamamatsu S360", HARD_NEGATIVE): 1066,
        ("Hamamatsu XR", MITOTIC_FIGURE): 451, ("Hamamatsu XR", HARD_NEGATIVE): 724,
    }  # fmt: skip
    slides = read_midogpp_slides(published / "MIDOGpp_datasets_xvalidation.csv")
    assert len(slides) == 503
    same = {"Hamammatsu XR": "Hamamatsu XR"}  # spelt so in the table
    for slide in slides[:150]:
        assert same.get(slide.scanner, slide.scanner) == midog2021_scanner(f"{slide.number:03d}.tiff")


@pytest.mark.real
def test_the_real_grades(test_data: Path) -> None:
    masks = sorted((test_data / "prostate_gleason" / "mask").glob("*.png"))
    assert len(masks) == 4
    for path in masks:
        values = read_grades(path, CODINGS["gleason_grade"])
        np.testing.assert_array_equal(values, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        with pytest.raises(UsageError, match="Name the coding"):
            read_grades(path, CODINGS["sicapv2"] if 1 in values else CODINGS["panda_karolinska"])
