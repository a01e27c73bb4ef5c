"""What is foretold is what happens: the same cohort, good slides and bad ones, first looked at and then tiled."""

import csv
import io
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PosixPath

import numpy as np
import pytest

from tests.tiffs import Kind, halve, write_tiff
from wsi_lmc.cluster import DaskExecutor, LocalWorkers
from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.costs import Machine
from wsi_lmc.errors import UsageError
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.grid import GridConfig
from wsi_lmc.preflight import audit_cohort, audits_as_csv, needs
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.audit import Audit
from wsi_lmc.steps.tile import TileConfig

MACHINE = Machine(decode_s=2e-4, cores=2)
HERE = RunOptions(SerialExecutor())


class Deadly(PosixPath):
    """A slide's path; whoever looks at the file is killed, as by a crash in a codec."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().stat(follow_symlinks=follow_symlinks)


class Endless(PosixPath):
    """A slide's path; whoever looks at the file hangs in native code that keeps the interpreter for itself."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        re.fullmatch("(a+)+b", "a" * 60)
        return super().stat(follow_symlinks=follow_symlinks)


@pytest.fixture(scope="module", autouse=True)
def found_by_workers() -> Iterator[None]:
    """Workers import this file by its name, so they have to find its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture
def bad_cohort(small_cohort: Path, tmp_path: Path) -> list[SlideEntry]:
    """Good slides, and one for each reason that can be known beforehand."""
    folder = tmp_path / "bad"
    folder.mkdir()
    good = small_cohort / "slides" / "north-01.tif"
    content = good.read_bytes()
    for name, share in (("cut-99", 0.99), ("cut-50", 0.5), ("cut-1", 0.01)):
        (folder / f"{name}.tif").write_bytes(content[: int(len(content) * share)])
    (folder / "empty.tif").touch()
    (folder / "garbage.svs").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "directory.tif").mkdir()
    os.mkfifo(folder / "fifo.tif")
    (folder / "gone.tif").symlink_to(folder / "nowhere")
    pixels = np.full((700, 900, 3), 243, np.uint8)
    write_tiff(folder / "glass.tif", [pixels, halve(pixels)], Kind(), um=0.5)
    write_tiff(folder / "tiny.tif", [pixels[:100, :90]], Kind(), um=0.5)
    write_tiff(folder / "coarse.tif", [pixels], Kind(), um=2.0)
    write_tiff(folder / "absurd.tif", [pixels], Kind(), um=200.0)
    write_tiff(folder / "fine.tif", [pixels], Kind(), um=0.05)
    for name in ("same name.tif", "twice/x.tif", "TWICE/X.tif"):
        (folder / "names" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, folder / "names" / name)
    listed = {"given.tif": "0.5", "contradicted.tif": "0,25", "nonsense.tif": "half"}
    for name in listed:
        shutil.copy(good, tmp_path / name)
    (tmp_path / "manifest.csv").write_text("slide,mpp\n" + "".join(f'{name},"{mpp}"\n' for name, mpp in listed.items()))
    return find_slides([str(small_cohort / "slides"), str(folder), str(tmp_path / "manifest.csv")])


def _of(audits: list[Audit]) -> dict[str, Audit]:
    return {
        audit.slide_id.rsplit("-", 1)[0] if audit.code == "duplicate_name" else audit.slide_id: audit
        for audit in audits
    }


def test_what_is_foretold_is_what_tile_records(bad_cohort: list[SlideEntry], tmp_path: Path) -> None:
    config = TileConfig(grid=GridConfig(max_tiles=40))
    audits = audit_cohort(bad_cohort, config, HERE)
    happened = tile_cohort(bad_cohort, tmp_path / "run", config, HERE)
    for audit, outcome in zip(audits, happened, strict=True):
        told = ["slide_id", "stage", "state", "code", "reason", "remedy", "tiles"]
        if audit.code != "duplicate_name":  # of which more is known here
            told += ["mpp", "mpp_source"]
        assert [getattr(audit, name) for name in told] == [getattr(outcome, name) for name in told]
    codes = {audit.code for audit in audits}
    assert codes == {
        "", "truncated", "empty_file", "not_a_slide", "folder", "not_a_file", "missing", "too_coarse", "mpp_invalid",
        "duplicate_name",
    }  # fmt: skip
    assert {audit.state for audit in audits} == {"done", "empty", "failed"}


def test_a_grid_too_large_is_refused_as_by_tile(small_cohort: Path, tmp_path: Path) -> None:
    slides = find_slides([str(small_cohort / "slides")])
    config = TileConfig(grid=GridConfig(max_tiles=5))
    audits = audit_cohort(slides, config, HERE)
    assert [audit.code for audit in audits] == ["too_large"] * 4
    assert [audit.reason for audit in audits] == [o.reason for o in tile_cohort(slides, tmp_path, config, HERE)]


def test_facts_are_found_even_where_a_slide_would_fail(bad_cohort: list[SlideEntry]) -> None:
    found = _of(audit_cohort(bad_cohort, TileConfig(), HERE))
    coarse = found["coarse"]
    assert (coarse.code, coarse.vendor, coarse.width, coarse.height) == ("too_coarse", "generic-tiff", 900, 700)
    assert {said.source for said in found["absurd"].statements} == {"OpenSlide", "tiff.XResolution", "tiffslide"}
    assert found["cut-50"].code == "truncated"
    assert found["tiny"].notes == ("smaller than a tile",)
    assert any("same_name-" in note for audit in found.values() for note in audit.notes), "an unsafe name is told"
    assert found["X"].code == found["x"].code == "duplicate_name"
    assert found["x"].tiles == 0
    assert found["x"].width > 0, "what else is wrong with a duplicate is of interest, too"


def test_sources_of_the_pixel_size_are_compared(bad_cohort: list[SlideEntry]) -> None:
    found = _of(audit_cohort(bad_cohort, TileConfig(mpp=0.5), HERE))
    assert found["north-01"].mpp_agrees
    assert found["given"].mpp_agrees
    contradicted = found["contradicted"]
    assert (contradicted.state, contradicted.mpp, contradicted.mpp_source) == ("done", 0.25, "manifest")
    assert not contradicted.mpp_agrees
    said = {statement.source: statement.x for statement in contradicted.statements}
    assert (said["manifest"], said["option --mpp"]) == ("0,25", "0.5")


def test_without_overviews_every_place_counts(small_cohort: Path) -> None:
    slides = find_slides([str(small_cohort / "slides")])
    by_tissue = audit_cohort(slides, TileConfig(), HERE)
    at_most = audit_cohort(slides, TileConfig(), HERE, overviews=False)
    for counted, whole in zip(by_tissue, at_most, strict=True):
        assert (counted.counted, whole.counted) == (True, False)
        assert 0 < counted.tiles < whole.tiles == whole.places == counted.places


def test_outlines_replace_tissue_as_in_tile(small_cohort: Path, tmp_path: Path) -> None:
    slides = find_slides([str(small_cohort / "slides")])
    tile_cohort(slides, tmp_path, TileConfig(), HERE)
    outlines = tmp_path / "contours"
    (outlines / "north-01.geojson").write_text("{}")
    (outlines / "north-02.geojson").unlink()
    options = replace(HERE, mask=outlines)
    audits = audit_cohort(slides, TileConfig(), options)
    happened = tile_cohort(slides, tmp_path / "other", TileConfig(), options)
    assert [(audit.code, audit.tiles) for audit in audits] == [(o.code, o.tiles) for o in happened]
    assert [audit.code for audit in audits][:2] == ["bad_mask"] * 2
    with pytest.raises(UsageError, match="no mask"):
        audit_cohort(slides, TileConfig(), replace(HERE, mask=tmp_path / "none"))


def test_a_slide_that_kills_or_hangs_its_process_fails_alone(small_cohort: Path) -> None:
    good = find_slides([str(small_cohort / "slides")])
    slides = [
        SlideEntry(Endless("endless.tif"), "endless"),
        *good[:2],
        SlideEntry(Deadly("deadly.tif"), "deadly"),
        *good[2:],
    ]
    heard: list[str] = []
    with DaskExecutor(LocalWorkers(2), slide_timeout_s=5) as executor:
        options = RunOptions(executor, on_outcome=lambda outcome: heard.append(outcome.slide_id))
        audits = audit_cohort(slides, TileConfig(), options)
    assert [audit.slide_id for audit in audits] == [entry.slide_id for entry in slides]
    assert [audit.code for audit in audits] == ["timed_out", "", "", "worker_died", "", ""]
    assert "after 5 s" in audits[0].reason
    assert sorted(heard) == sorted(entry.slide_id for entry in slides)
    assert [audit.tiles for audit in audits if not audit.code] == [
        a.tiles for a in audit_cohort(good, TileConfig(), HERE)
    ]


def test_the_table_is_a_manifest_and_harmless(bad_cohort: list[SlideEntry], tmp_path: Path) -> None:
    audits = audit_cohort(bad_cohort, TileConfig(), HERE)
    text = audits_as_csv(bad_cohort, audits, MACHINE)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["slide_id"] for row in rows] == [entry.slide_id for entry in bad_cohort]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "@"))]
    by_id = {row["slide_id"]: row for row in rows}
    assert by_id["contradicted"]["says manifest"] == "0,25"
    assert float(by_id["contradicted"]["says tiff.XResolution"]) == 0.5
    assert by_id["contradicted"]["mpp_agrees"] == "False"
    assert by_id["cut-1"]["mpp_agrees"] == "", "where nothing is said nothing agrees"
    (tmp_path / "plan.csv").write_text(text)
    again = find_slides([str(tmp_path / "plan.csv")])
    assert [entry.path.resolve() for entry in again] == [entry.path.resolve() for entry in bad_cohort]
    assert [entry.mpp for entry in again] == [None] * len(again), "what was found is not what was given"


def test_sums_are_of_slides_that_can_be_tiled(bad_cohort: list[SlideEntry]) -> None:
    audits = audit_cohort(bad_cohort, TileConfig(), HERE)
    sums = needs(audits, MACHINE)
    good = [audit for audit in audits if audit.state == "done"]
    assert sums.tiles == sum(audit.tiles for audit in good)
    assert sums.states["done"] == len(good)
    assert sum(sums.states.values()) == len(audits)
    assert sums.store_bytes == sum(audit.cutting.kept_bytes for audit in good if audit.cutting) > 0
    assert sums.core_seconds > sum(audit.seconds for audit in good)
