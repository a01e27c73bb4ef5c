"""Cohorts of Gleason grades, of images or slides, with masks or tables, to a table of scores."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.common import main
from pipelines.gleason import PIPELINE
from pipelines.smoke import write_gleason
from wsi_lmc.annotations import CODINGS, read_grades
from wsi_lmc.labels import labels_path, read_labels
from wsi_lmc.runfolder import list_slides, outcomes
from wsi_lmc.synthetic import NORTH, SlideSpec, draw, expose, stain_slide
from wsi_lmc.synthetic.writing import write_tiff
from wsi_lmc.tilestore import TileStore


def _call(config: Path, data: Path, out: Path, *more: str) -> int:
    return main(PIPELINE, ["--config", str(config), "--data", str(data), "-o", str(out), "--workers", "0", *more])


@pytest.fixture(scope="module")
def run(downloads: Path, configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gleason")
    assert _call(configs / "gleason" / "smoke.yaml", downloads / "gleason", out) == 0
    return out


def test_from_two_codings_to_a_table(run: Path) -> None:
    assert "other" in (run / "study" / "table.md").read_text(encoding="utf-8")
    assert {entry.patient for entry in list_slides(run / "one")} == {"core1", "core2"}
    assert {entry.patient for entry in list_slides(run / "other")} == {"slide001", "slide002"}


@pytest.mark.parametrize(("site", "mask", "coding", "side"), [
    ("one", "core2_mask", "panda_radboud", 128), ("other", "slide002_core1", "gleason2019", 160),
])  # fmt: skip
def test_tiles_have_the_grade_of_most_of_their_mask(
    run: Path, downloads: Path, site: str, mask: str, coding: str, side: int
) -> None:
    names = CODINGS[coding].values
    values = read_grades(downloads / "gleason" / site / "mask" / f"{mask}.png", CODINGS[coding])
    slide_id = mask.removesuffix("_mask")
    labels = read_labels(labels_path(run / site, slide_id))
    store = TileStore.open(run / site / "tiles" / f"{slide_id}.zarr")
    assert labels
    for x, y in store.origins.tolist():
        shares = np.bincount(values[y : y + side, x : x + side].ravel(), minlength=6) / side**2
        best = int(np.argmax([share if names.get(value) else 0 for value, share in enumerate(shares)]))
        assert labels.get((x, y)) == (names[best] if shares[best] >= 0.5 else None)


def test_tiles_are_the_image_reduced_by_area(run: Path, downloads: Path) -> None:
    image = cv2.imread(str(downloads / "gleason" / "other" / "img" / "slide001_core1.png"))
    assert image is not None
    store = TileStore.open(run / "other" / "tiles" / "slide001_core1.zarr")
    assert (store.mpp.mean, store.attributes["tile"]["footprint"]) == (0.25, [160.0, 160.0])
    x, y = store.origins[1].tolist()
    expected = cv2.resize(image[y : y + 160, x : x + 160, ::-1], (128, 128), interpolation=cv2.INTER_AREA)
    difference = np.abs(store.read(np.asarray([1]))[0].astype(int) - expected)
    assert difference.mean() < 1  # where an area mean spans two tiles it may differ


_SETTINGS = """
data:
  classes: [benign, gleason 4]
source:
  name: slides
  kind: slides
  images: panda/train_images/*.tiff
  masks: panda/train_label_masks/{}_mask.tiff
  mask_page: 1
  coding: panda_radboud
  only: panda/train.csv
  only_provider: radboud
target:
  name: tables
  images: sicap/images/*.png
  coding: sicapv2
  sicap_partition: sicap/Train.csv
  mpp: 0.25
  group: "([^_]+)_"
  patients: sicap/patients.csv
tile:
  tile_px: 128
  tile_mpp: 0.25
"""


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Slides with masks as PANDA has them, and patches with a table as SICAPv2 has it."""
    for folder in ("train_images", "train_label_masks"):
        (tmp_path / "panda" / folder).mkdir(parents=True)
    drawing = draw(SlideSpec(7, 896, 1024, 0.25))
    rng = np.random.default_rng(0)
    pixels = expose(drawing.concentrations, NORTH, stain_slide(NORTH, rng), rng)
    table = np.zeros(256, np.uint8)
    table[[0, 1]] = 2, 4
    values = table[drawing.classes]
    levels = [np.dstack([np.zeros_like(v), np.zeros_like(v), v]) for v in (values, values[2::4, 2::4])]
    for name in ("aa", "bb"):
        write_tiff(tmp_path / "panda" / "train_images" / f"{name}.tiff", pixels, 0.25, 90)
        cv2.imwritemulti(str(tmp_path / "panda" / "train_label_masks" / f"{name}_mask.tiff"), levels)
    rows = "image_id,data_provider\naa,radboud\nbb,karolinska\n"
    (tmp_path / "panda" / "train.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "sicap" / "images").mkdir(parents=True)
    for name in ("16B1_Block_1", "16B2_Block_1", "16B2_Block_2"):
        cv2.imwrite(str(tmp_path / "sicap" / "images" / f"{name}.png"), pixels[400:656, 400:656, ::-1])
    listed = "image_name,NC,G3,G4,G5\n16B1_Block_1.png,1,0,0,0\n16B2_Block_1.png,0,0,1,0\n"
    (tmp_path / "sicap" / "Train.csv").write_text(listed, encoding="utf-8")
    (tmp_path / "sicap" / "patients.csv").write_text("group,patient\n16B1,P1\n16B2,P1\n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text(_SETTINGS, encoding="utf-8")
    return tmp_path


def test_slides_with_masks_and_patches_with_tables(others: Path) -> None:
    assert _call(others / "c.yaml", others, others / "out", "--check") == 0
    assert _call(others / "c.yaml", others, others / "out", "--prepare-only") == 0
    (slide,) = list_slides(others / "out" / "slides")
    assert (slide.slide_id, slide.patient) == ("aa", "aa")
    classes = draw(SlideSpec(7, 896, 1024, 0.25)).classes
    labels = read_labels(labels_path(others / "out" / "slides", "aa"))
    assert set(labels.values()) == {"benign", "gleason 4"}
    for (x, y), label in labels.items():
        assert (classes[y : y + 128, x : x + 128] == (1 if label == "gleason 4" else 0)).mean() > 0.45
    patches = list_slides(others / "out" / "tables")
    assert [(entry.slide_id, entry.patient) for entry in patches] == [("16B1_Block_1", "P1"), ("16B2_Block_1", "P1")]
    tables = [read_labels(labels_path(others / "out" / "tables", entry.slide_id)) for entry in patches]
    assert [set(table.values()) for table in tables] == [{"benign"}, {"gleason 4"}]
    assert [len(table) for table in tables] == [4, 4]


def test_check_names_masks_and_tables_that_are_missing(others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (others / "panda" / "train_label_masks" / "bb_mask.tiff").unlink()
    (others / "sicap" / "patients.csv").unlink()
    (others / "SICAPv2.zip").write_bytes(b"cut short")
    assert _call(others / "c.yaml", others, others / "out", "--check") == 1
    said = capsys.readouterr().out
    assert "1 of 2 masks of slides missing" in said
    assert "no table" in said
    assert "SICAPv2.zip has 9 bytes, published are 2159052394" in said


def test_images_without_a_mask_fail_or_are_left_out(others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (others / "panda" / "train_label_masks" / "bb_mask.tiff").unlink()
    text = _SETTINGS.replace("  only: panda/train.csv\n  only_provider: radboud\n", "")
    (others / "c.yaml").write_text(text, encoding="utf-8")
    assert _call(others / "c.yaml", others, others / "out", "--prepare-only") == 1
    assert "bb: environment: no file" in capsys.readouterr().out
    (others / "c.yaml").write_text(text.replace("  mask_page", "  masked_only: true\n  mask_page"), encoding="utf-8")
    assert _call(others / "c.yaml", others, others / "out2", "--check") == 0
    assert _call(others / "c.yaml", others, others / "out2", "--prepare-only") == 0
    assert [entry.slide_id for entry in list_slides(others / "out2" / "slides")] == ["aa"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("classes: [benign, gleason 4]", "classes: [benign]", "two classes or more"),
        ("classes: [benign, gleason 4]", "classes: [stroma, gleason 4]", "that both cohorts know"),
        ("coding: panda_radboud", "coding: panda", "coding 'panda'"),
        ("name: tables", "name: slides", "two different names"),
        ('group: "([^_]+)_"', "group: (nothing)", "not of the form"),
        ("  mpp: 0.25\n", "", "microns per pixel of tables are unknown"),
        ("images: sicap/images/*.png", "images: none/*.png", "no images none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    others: Path, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in _SETTINGS
    (others / "c.yaml").write_text(_SETTINGS.replace(old, new), encoding="utf-8")
    assert _call(others / "c.yaml", others, others / "out", "--prepare-only") == 2
    assert said in capsys.readouterr().err


def test_images_coarser_than_the_tiles_fail_by_name(configs: Path, tmp_path: Path) -> None:
    write_gleason(tmp_path / "data")
    text = (configs / "gleason" / "smoke.yaml").read_text(encoding="utf-8").replace("mpp: 0.2\n", "mpp: 0.5\n")
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert _call(tmp_path / "c.yaml", tmp_path / "data", tmp_path / "out", "--prepare-only") == 1
    assert {outcome.code for outcome in outcomes(tmp_path / "out" / "other", "tile")} == {"too_coarse"}


_REAL = """
data:
  classes: [gleason 3, gleason 4, stroma]
source: &cohort
  name: first
  images: img/test10[01].jpg
  masks: mask/{}.png
  coding: gleason_grade
  mpp: 0.5
target:
  <<: *cohort
  name: second
  images: img/test10[23].jpg
tile:
  tile_px: 256
  min_tissue: 0.3
"""


@pytest.mark.real
def test_real_cores_become_two_cohorts(test_data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(_REAL, encoding="utf-8")
    data = test_data / "prostate_gleason"
    assert _call(tmp_path / "c.yaml", data, tmp_path / "out", "--check") == 0
    assert _call(tmp_path / "c.yaml", data, tmp_path / "out", "--prepare-only") == 0
    found: set[str] = set()
    for site, slides in (("first", ("test100", "test101")), ("second", ("test102", "test103"))):
        assert tuple(entry.slide_id for entry in list_slides(tmp_path / "out" / site)) == slides
        for slide_id in slides:
            labels = read_labels(labels_path(tmp_path / "out" / site, slide_id))
            values = cv2.imread(str(data / "mask" / f"{slide_id}.png"), cv2.IMREAD_GRAYSCALE)
            assert values is not None
            for (x, y), label in labels.items():
                code = {"gleason 3": 0, "gleason 4": 1, "stroma": 4}[label]
                assert (values[y : y + 256, x : x + 256] == code).mean() >= 0.5
            found |= set(labels.values())
    assert found == {"gleason 3", "gleason 4", "stroma"}
