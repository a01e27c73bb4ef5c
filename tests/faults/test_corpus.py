"""The corpus of bad slides, cut in one run with good ones among them: each comes out as its row of the table says."""

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from tests.faults.corpus import ELSEWHERE, FILES, MISSING, Case
from tests.faults.patching import bomb
from tests.faults.samples import PALETTE, SIDE, TISSUE_TILES, generic, opaque, plain, tissue
from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.executor import SerialExecutor, attempt
from wsi_lmc.grid import GridConfig
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.slide import ReaderName
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import TileStore, Validity
from wsi_lmc.tissue import TissueConfig

CONFIG = TileConfig(GridConfig(tile_px=SIDE), TissueConfig(min_object_um2=1000))
_HANGS_S = 20.0
_MEMORY_MB = 200


@dataclass(frozen=True)
class Run:
    """What a run over the corpus left behind: outcomes by the name of the file, and the folder."""

    outcomes: dict[str, Outcome]
    out: Path
    slides: Path

    def store(self, name: str) -> TileStore:
        """The tiles of a slide that is done or empty."""
        return TileStore.open(self.out / "tiles" / f"{self.outcomes[name].slide_id}.zarr")


def _cohort(slides: Path) -> list[SlideEntry]:
    return find_slides([str(slides), str(slides / "gone.svs")])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole corpus, cut in one run by worker processes."""
    slides, out = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("run")
    for case in FILES:
        case.make(slides / case.name)
    entries = _cohort(slides)
    with make_executor(LocalWorkers(2)) as executor:
        found = tile_cohort(entries, out, CONFIG, RunOptions(executor))
    return Run({entry.path.name: outcome for entry, outcome in zip(entries, found, strict=True)}, out, slides)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name, marks=pytest.mark.row(c.row)) for c in FILES])
def test_a_slide_comes_out_as_it_must(case: Case, run: Run) -> None:
    outcome = run.outcomes[case.name]
    assert (outcome.code or outcome.state) == case.expected, outcome.reason
    assert outcome.seconds < _HANGS_S
    assert outcome.detail == "", "nobody foresaw this"
    if outcome.state == "failed":
        assert "expected" in outcome.reason
        assert outcome.remedy
        assert str(run.slides) not in outcome.reason, "no folder in what is recorded"
        assert not (run.out / "tiles" / f"{outcome.slide_id}.zarr").exists()


@pytest.mark.row(7)
def test_each_kind_of_file_that_is_no_slide_has_a_reason_of_its_own(run: Run) -> None:
    names = ("gone", "empty", "garbage", "half", "circle-of-directories", "folder", "pipe")
    codes = {outcome.slide_id: outcome.code for outcome in run.outcomes.values()}
    assert len({codes[name] for name in names}) == len(names)
    assert codes["gone"] == "missing"


@pytest.mark.row(7)
def test_a_bad_slide_never_stops_the_others(run: Run) -> None:
    assert set(run.outcomes) == {case.name for case in FILES} | {"gone.svs"}
    rows = (run.out / "slides.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(run.outcomes)
    good = {case.name for case in FILES if case.expected == "done"}
    assert len(good) > len(FILES) // 3
    assert {path.stem for path in (run.out / "tiles").iterdir()} >= {run.outcomes[name].slide_id for name in good}
    assert list((run.out / ".tmp").iterdir()) == []


@pytest.mark.row(8)
def test_done_and_empty_slides_are_not_redone_and_bad_ones_fail_alike(run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run.out / "tiles").rglob("*")}
    again = tile_cohort(_cohort(run.slides), run.out, CONFIG, RunOptions(SerialExecutor()))
    for outcome in again:
        first = next(o for o in run.outcomes.values() if o.slide_id == outcome.slide_id)
        assert (outcome.state, outcome.code) == (first.state, first.code)
        assert outcome.fresh == (outcome.state == "failed")
    assert {path: path.stat().st_mtime_ns for path in (run.out / "tiles").rglob("*")} == before


@pytest.mark.row(8)
def test_without_tissue_there_are_no_tiles_and_with_nothing_else_all(run: Run) -> None:
    for name in ("glass.tif", "white.tif", "black.tif"):
        store = run.store(name)
        assert store.read(np.arange(0)).shape == (0, SIDE, SIDE, 3)
        assert (run.out / "overviews" / f"{run.outcomes[name].slide_id}.jpg").is_file()
    for name in ("all-tissue.tif", "all-of-one-pink.tif"):
        assert run.outcomes[name].tiles == 48


@pytest.mark.row(9)
@pytest.mark.parametrize(
    ("name", "mpp", "source"),
    [
        ("mpp-comma.svs", 0.5, "aperio.MPP"),
        ("mpp-and-nothing.svs", 0.25, "aperio.MPP"),
        ("mpp-as-resolution.svs", 0.25, "tiff.XResolution"),
        ("good.tif", 0.5, "tiff.XResolution"),
        ("good.aperio.svs", 0.5, "aperio.MPP"),
    ],
)
def test_where_a_pixel_size_comes_from_is_recorded(name: str, mpp: float, source: str, run: Run) -> None:
    outcome = run.outcomes[name]
    assert outcome.mpp == pytest.approx(mpp)
    assert outcome.mpp_source == source
    assert run.store(name).attributes["slide"]["mpp_source"] == source


@pytest.mark.row(9)
def test_pixel_sizes_that_are_given_fill_the_gaps(run: Run, tmp_path: Path) -> None:
    """The option stands in where the file has nothing usable; the manifest overrides, and must be usable itself."""
    names = ("missing", "valueless", "zero", "negative", "nan", "inf", "tiny", "huge")
    unusable = [run.slides / f"mpp-{name}.svs" for name in names]
    config = replace(CONFIG, mpp=0.5)
    entries = [SlideEntry(path, path.stem) for path in unusable]
    found = tile_cohort(entries, tmp_path / "option", config, RunOptions(SerialExecutor()))
    assert {(outcome.state, outcome.mpp_source, outcome.mpp) for outcome in found} == {("done", "option --mpp", 0.5)}
    cells = ("0,5", "0.5", " 0.50 ", "0", "-0.5", "nan", "1e-6", "20")
    rows = "".join(f'{path},"{cell}"\n' for path, cell in zip(unusable, cells, strict=True))
    (tmp_path / "manifest.csv").write_text(f"slide,mpp\n{rows}", encoding="utf-8")
    entries = find_slides([str(tmp_path / "manifest.csv")])
    found = tile_cohort(entries, tmp_path / "manifest", CONFIG, RunOptions(SerialExecutor()))
    assert [outcome.code or outcome.mpp_source for outcome in found] == ["manifest"] * 3 + ["mpp_invalid"] * 5


@pytest.mark.row(10)
def test_a_tile_of_oblong_pixels_covers_equal_microns(run: Run) -> None:
    store = run.store("oblong.tif")
    tile, (mpp_x, mpp_y) = store.attributes["tile"], store.attributes["slide"]["mpp"]
    assert (mpp_x, mpp_y) == (0.25, 0.5)
    assert [side * mpp for side, mpp in zip(tile["footprint"], (mpp_x, mpp_y), strict=True)] == [SIDE * 0.5] * 2
    assert tile["effective_mpp"] == [0.5, 0.5]
    pixels = store.read(np.arange(len(store)))
    with openslide.OpenSlide(run.slides / "oblong.tif") as slide:
        for (x, y), found in zip(store.origins.tolist(), pixels, strict=True):
            region = np.asarray(slide.read_region((x, y), 0, (2 * SIDE, SIDE)).convert("RGB"))
            expected = cv2.resize(region, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(found, expected)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _refuse(path: Path, out: Path, reader: ReaderName) -> tuple[str, float, float]:
    """What becomes of a slide, by how many MB this process grew, and the seconds it took."""
    attempt(tile_slide, TileTask(SlideEntry(generic(out / "whole.tif"), "whole"), out, CONFIG))  # what it takes anyway
    before, began = _peak_mb(), time.monotonic()
    outcome = attempt(tile_slide, TileTask(SlideEntry(path, "bomb"), out, replace(CONFIG, reader=reader)))
    assert isinstance(outcome, Outcome)
    return outcome.code or outcome.state, _peak_mb() - before, time.monotonic() - began


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process whose memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.row(12)
@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide"])
@pytest.mark.parametrize(("side", "tile"), [(1_000_000, 4096), (400_000, 4096), (32_768, 32_768)])
def test_a_bomb_is_refused_before_it_is_decoded(
    side: int, tile: int, reader: ReaderName, apart: ProcessPoolExecutor, tmp_path: Path
) -> None:
    bomb(tmp_path / "bomb.tif", side, tile)
    assert (tmp_path / "bomb.tif").stat().st_size < 4_000_000
    code, grown_mb, seconds = apart.submit(_refuse, tmp_path / "bomb.tif", tmp_path, reader).result(timeout=60)
    assert code == "too_large"
    assert grown_mb < _MEMORY_MB
    assert seconds < _HANGS_S


@pytest.mark.row(12)
def test_what_bombs_are_made_of_is_a_slide_but_for_its_size(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.tif", 1500, 600)
    outcome = attempt(tile_slide, TileTask(SlideEntry(tmp_path / "bomb.tif", "bomb"), tmp_path, CONFIG))
    assert isinstance(outcome, Outcome)
    assert outcome.state == "empty", "all of it is black"
    assert (outcome.mpp, outcome.mpp_source) == (0.5, "tiff.XResolution")


@pytest.mark.row(13)
@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide"])
@pytest.mark.parametrize("name", ["sparse.tif", "sparse.aperio.svs", "sparse.33005.svs"])
def test_what_was_not_scanned_is_glass_and_never_black(name: str, reader: ReaderName, run: Run, tmp_path: Path) -> None:
    config = replace(CONFIG, reader=reader, grid=GridConfig(tile_px=SIDE, min_tissue=0.0))
    outcome = attempt(tile_slide, TileTask(SlideEntry(run.slides / name, "sparse"), tmp_path, config))
    assert isinstance(outcome, Outcome)
    assert outcome.state == "done"
    store = TileStore.open(tmp_path / "tiles" / "sparse.zarr")
    pixels = store.read(np.arange(len(store)))
    missing = [(int(y) // SIDE, int(x) // SIDE) in MISSING for x, y in store.origins]
    assert sum(missing) == len(MISSING)
    np.testing.assert_array_equal(store.valid, np.where(missing, Validity.COMPOSITED, Validity.OK))
    assert (pixels[missing] == 255).all()
    assert pixels[~np.asarray(missing)].min() > 50


@pytest.mark.row(13)
def test_a_frame_that_was_not_scanned_is_left_out(run: Run) -> None:
    store = run.store("sparse-frame.tif")
    assert store.read(np.arange(len(store))).min() > 50
    assert set(store.valid.tolist()) == {Validity.OK}


@pytest.mark.row(14)
@pytest.mark.parametrize("name", ["rgba.tif", "rgba-half.tif", "palette.tif", "planar.tif", "strips.tif"])
def test_pixels_of_other_kinds_are_what_they_mean(name: str, run: Run) -> None:
    expected = tissue().astype(np.float64)
    if name == "rgba-half.tif":
        expected = expected * 128 / 255 + 255 * 127 / 255  # on glass
    elif name == "palette.tif":
        expected = (PALETTE // 257).T[tissue()[..., 1]].astype(np.float64)
    store = run.store(name)
    assert len(store) == TISSUE_TILES
    for (x, y), tile in zip(store.origins.tolist(), store.read(np.arange(len(store))), strict=True):
        difference = np.abs(expected[y : y + SIDE, x : x + SIDE] - tile).max()
        assert difference <= (2 if name == "rgba-half.tif" else 0)


@pytest.mark.row(14)
@pytest.mark.parametrize(
    ("name", "said"),
    [("grey", "grey"), ("sixteen-bit", "in 16 bits"), ("twelve-bit", "in 12 bits"), ("float", "in 32 bits")],
)
def test_pixels_that_are_refused_are_named(name: str, said: str, run: Run) -> None:
    assert said in run.outcomes[f"{name}.tif"].reason


@pytest.mark.row(14)
def test_what_one_reader_could_not_convert_it_refuses(tmp_path: Path) -> None:
    """tiffslide has no alpha, and would show what is transparent."""
    plain(tmp_path / "x.tif", opaque(0), extrasamples=["unassalpha"])
    task = TileTask(SlideEntry(tmp_path / "x.tif", "x"), tmp_path, replace(CONFIG, reader="tiffslide"))
    outcome = attempt(tile_slide, task)
    assert isinstance(outcome, Outcome)
    assert outcome.code == "unsupported"


@pytest.mark.row(7)
@pytest.mark.parametrize("reader", ["auto", "direct", "openslide", "tiffslide"])
def test_one_damaged_tile_costs_that_tile_alone(reader: ReaderName, run: Run, tmp_path: Path) -> None:
    """On a slide of one level, where the overview meets it, too; decoded directly, a tile's start does not matter."""
    path = run.slides / "one-tile-bad-one-level.tif"
    outcome = attempt(tile_slide, TileTask(SlideEntry(path, "x"), tmp_path, replace(CONFIG, reader=reader)))
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.tiles) == ("done", TISSUE_TILES)
    store = TileStore.open(tmp_path / "tiles" / "x.zarr")
    bad = [tuple(origin) for origin in store.origins[store.valid == Validity.UNREADABLE].tolist()]
    assert bad == ([] if reader == "direct" else [(4 * SIDE, SIDE)])


@pytest.mark.row(7)
def test_names_and_ids_are_unique_in_the_corpus() -> None:
    assert max(Counter(Path(case.name).stem for case in FILES).values()) == 1


@pytest.mark.real
@pytest.mark.row(7)
def test_every_case_of_openslide_that_needs_no_vendors_data_is_there(test_data: Path) -> None:
    known: dict[str, str] = json.loads((test_data / "wsi_cases" / "openslide_cases.json").read_text(encoding="utf-8"))
    families = ("aperio", "generic-tiff", "empty-file", "nonexistent-file", "untiled")
    wanted = {name for name in known if name.startswith(families)}
    built = {case.after for case in FILES if case.after} | set(ELSEWHERE)
    assert len(wanted) == 43
    assert built == wanted
