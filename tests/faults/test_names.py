"""Names of slides that have broken tools: whatever a file is called, it is cut under a safe id, and found again."""

import csv
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from tests.faults.samples import SIDE, generic
from wsi_lmc.cohort import find_slides
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.grid import GridConfig
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.runfolder import list_slides
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tissue import TissueConfig

pytestmark = pytest.mark.row(15)

CONFIG = TileConfig(GridConfig(tile_px=SIDE), TissueConfig(min_object_um2=1000))
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
SINGLE = (
    "a slide.tif", "two\nlines.tif", "return\rhere.tif", "-x.tif", "--help.tif", "=1+1.tif", "@here.tif",
    "a" * 251 + ".tif", "我的氣墊船裝滿了鱔魚.tif", "Größe.tif", "..tif", "x..tif", "a'b\"c`d$(e).tif", "tab\there.tif",
    "star*[1].tif",
    "semi;colon,comma.tif", os.fsdecode(b"latin-\xe4.tif"), "\u202egpj.tif", "CON.tif", "con\x7fol\x1b[31m.tif",
)  # fmt: skip
ALIKE = (
    ("site1/a.tif", "site2/a.tif"),
    ("site1/Slide.tif", "site2/slide.tif"),
    ("site1/one.tif", "site1/one.tiff"),
    (f"{unicodedata.normalize('NFC', 'café')}.tif", f"{unicodedata.normalize('NFD', 'café')}.tif"),
)


def _lay(folder: Path, names: list[str]) -> dict[Path, Path]:
    """The same small slide under every name, from where its tiles must be found again."""
    whole = generic(folder / "whole.bin")
    for name in names:
        path = folder / "slides" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(whole, path)
    return {folder / "slides" / name: whole for name in names}


def _tile(slides: Path, out: Path) -> dict[Path, Outcome]:
    entries = find_slides([str(slides)])
    found = tile_cohort(entries, out, CONFIG, RunOptions(SerialExecutor()))
    return {entry.path: outcome for entry, outcome in zip(entries, found, strict=True)}


def test_any_name_is_cut_under_a_safe_id_and_kept_in_the_manifest(tmp_path: Path) -> None:
    named = _lay(tmp_path, list(SINGLE))
    found = _tile(tmp_path / "slides", tmp_path / "run")
    assert set(found) == set(named) - {tmp_path / "slides" / "..tif"}, "but for the hidden one"
    assert {outcome.state for outcome in found.values()} == {"done"}
    ids = [outcome.slide_id for outcome in found.values()]
    assert all(SAFE.fullmatch(slide_id) for slide_id in ids)
    assert len({slide_id.casefold() for slide_id in ids}) == len(ids)
    assert {entry.path: entry.slide_id for entry in list_slides(tmp_path / "run")} == {
        path: outcome.slide_id for path, outcome in found.items()
    }
    written = {path.relative_to(tmp_path / "run").parts[-1] for path in (tmp_path / "run").rglob("*")}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in written)


def test_names_that_coincide_are_told_before_any_of_them_is_cut(tmp_path: Path) -> None:
    _lay(tmp_path, [name for pair in ALIKE for name in pair] + ["other.tif"])
    found = _tile(tmp_path / "slides", tmp_path / "run")
    for pair in ALIKE:
        for name in pair:
            outcome = found[tmp_path / "slides" / name]
            assert outcome.code == "duplicate_name", name
            assert Path(name).name in outcome.reason
    assert [path.name for path in (tmp_path / "run" / "tiles").iterdir()] == ["other.zarr"]


def test_ids_that_a_manifest_gives_part_them(tmp_path: Path) -> None:
    _lay(tmp_path, [name for pair in ALIKE for name in pair])
    names = [name for pair in ALIKE for name in pair]
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("slide", "slide_id"), *((f"slides/{name}", f"slide-{row}") for row, name in enumerate(names))]
        )
    found = _tile(tmp_path / "manifest.csv", tmp_path / "run")
    assert [outcome.state for outcome in found.values()] == ["done"] * len(names)


def test_the_table_has_a_row_for_a_bad_slide_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    for name in SINGLE[:-1]:
        (tmp_path / "slides" / name).write_bytes(b"no slide")
    found = _tile(tmp_path / "slides", tmp_path / "run")
    assert {outcome.code for outcome in found.values()} == {"not_a_slide"}
    with (tmp_path / "run" / "slides.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["slide_id"] for row in rows} == {outcome.slide_id for outcome in found.values()}
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize("name", ["-x.tif", "two\nlines.tif", os.fsdecode(b"latin-\xe4.tif")])
def test_the_command_takes_any_name_and_prints_what_became_of_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no slide")
    command = [sys.executable, "-m", "wsi_lmc", "tile", "-o", "run", "--workers", "0", "--", name]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert result.returncode == 1, result.stderr
    assert b"not_a_slide" in result.stderr
    assert b"Traceback" not in result.stderr
