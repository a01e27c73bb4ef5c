"""What is said of a slide by whom: everything, as it stands there, and whether it agrees."""

from pathlib import Path

import numpy as np
import pytest

from tests.tiffs import Kind, write_tiff
from wsi_lmc.slide import MppStatement, agree, look_into, open_slide

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 520, 3), dtype=np.uint8)


def _said(path: Path) -> dict[str, float]:
    return {statement.source: float(statement.x) for statement in look_into(path).statements}


def test_every_source_of_an_aperio_file_is_quoted(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.svs", [PIXELS], Kind(aperio=True), um=0.25)
    facts = look_into(path)
    assert (facts.vendor, [(size.width, size.height) for size in facts.level_sizes]) == ("aperio", [(520, 300)])
    assert _said(path) == pytest.approx(
        {"OpenSlide": 0.25, "aperio.MPP": 0.25, "tiff.XResolution": 0.25, "tiffslide": 0.25}
    )
    assert agree(facts.statements)


def test_sources_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.svs", [PIXELS], Kind(aperio=True), um=0.25)
    content = path.read_bytes()
    assert content.count(b"MPP = 0.25") == 1
    path.write_bytes(content.replace(b"MPP = 0.25", b"MPP = 0.35"))
    said = _said(path)
    assert (said["aperio.MPP"], said["tiff.XResolution"]) == pytest.approx((0.35, 0.25))
    assert not agree(look_into(path).statements)


def test_text_in_place_of_a_number_is_not_passed_on(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.svs", [PIXELS], Kind(aperio=True), um=0.25)
    path.write_bytes(path.read_bytes().replace(b"MPP = 0.25", b"MPP = DOE "))
    facts = look_into(path)
    assert {said.x for said in facts.statements if said.source == "aperio.MPP"} == {"no number"}
    assert "DOE" not in repr(facts)
    assert not agree(facts.statements)


def test_a_name_of_a_property_that_is_no_utf8_spoils_nothing(tmp_path: Path) -> None:
    """Scanners of other languages write such names, in Latin-1; a good slide was refused for it."""
    path = write_tiff(tmp_path / "slide.svs", [PIXELS], Kind(aperio=True), um=0.25)
    path.write_bytes(path.read_bytes().replace(b"Library v12.0.15", b"|Gr\xf6\xdfe = 1 |    "))
    assert _said(path)["aperio.MPP"] == 0.25
    with open_slide(path) as slide:
        assert slide.mpp_source == "aperio.MPP"


def test_a_file_that_no_library_opens_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(b"no slide at all")
    assert look_into(tmp_path / "slide.svs").statements == ()
    assert look_into(tmp_path / "slide.svs").vendor == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], True),
        ([("0.25", "0.25")], True),
        ([("0.25", "0.25"), ("0,2549", "0.25")], True),
        ([("0.25", "0.25"), ("0.2551", "0.25")], False),
        ([("0.25", "0.5"), ("0.25", "0.25")], False),
        ([("0", "0"), ("0.25", "0.25")], False),
        ([("352", "352"), ("352", "352")], False),
    ],
)
def test_two_per_cent_is_agreement_and_nonsense_agrees_with_nothing(
    values: list[tuple[str, str]], expected: bool
) -> None:
    assert agree([MppStatement(str(number), x, y) for number, (x, y) in enumerate(values)]) is expected


@pytest.mark.real
def test_real_slides_say_what_is_known_of_them(real_slides: Path) -> None:
    assert _said(real_slides / "CMU-1-Small-Region.svs") == {
        "OpenSlide": 0.499,
        "aperio.MPP": 0.499,
        "tiffslide": 0.499,
    }
    assert _said(real_slides / "tcga-cr-7395-01a-01-ts1.svs") == {}
    assert look_into(real_slides / "openslide_boxes_0.dcm").vendor == "dicom"
