"""The list of slides: states as the run's own table has them, quick for ten thousand, never older than a moment."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.views import serving
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run, record, write_table
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.viewer import ViewConfig
from wsi_lmc.viewer import library as library_module
from wsi_lmc.viewer.library import Library, Query, SlideRow
from wsi_lmc.viewer.places import Places

MANY = 10_000


@pytest.fixture(autouse=True)
def _renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "_RENEWED_S", 0.0)


def _run(folder: Path, ids: tuple[str, ...] = ("a", "b", "c"), hidden: bool = False) -> Path:
    prepare_run(folder)
    entries = [
        SlideEntry(folder.parent / f"Jane-{name}.svs", name, patient=f"p-{name}", site=site, label=label, hidden=hidden)
        for name, site, label in zip(ids, ("north", "south", "north"), ("tumour", "", "healthy"), strict=False)
    ]
    add_slides(folder, entries)
    plan(folder, "tile", Request(ids))
    return folder


def _states(library: Library) -> dict[str, tuple[str, str]]:
    return {row.slide_id: (row.stage, row.state) for row in library.all()}


def test_a_slide_has_the_state_that_the_run_s_table_gives_it(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    library = Library([run])
    assert _states(library) == dict.fromkeys("abc", ("", "not yet"))
    outcomes = [
        Outcome("a", "tile", "done", tiles=5, mpp=0.25),
        Outcome("a", "embed", "done", tiles=5, mpp=0.25),
        Outcome("b", "tile", "failed", "damaged", "half a file", "Copy it."),
        Outcome("b", "embed", "failed", "store", "no store", "Tile it."),
    ]
    for outcome in outcomes:
        record(run, outcome)
        time.sleep(0.01)
    by_records = _states(library)
    assert by_records == {"a": ("embed", "done"), "b": ("tile", "failed"), "c": ("", "not yet")}
    write_table(run)
    assert _states(library) == by_records
    row = library.find("a")
    assert row is not None
    assert (row[0].tiles, row[0].mpp, row[0].site, row[0].label, row[0].patient) == (5, 0.25, "north", "tumour", "p-a")


def test_records_newer_than_the_table_count(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    record(run, Outcome("a", "tile", "failed", "io", "torn", "Again."))
    write_table(run)
    os.utime(run / "slides.csv", ns=(1, 1))
    library = Library([run])
    assert _states(library)["a"] == ("tile", "failed")
    record(run, Outcome("a", "tile", "done", tiles=3))
    record(run, Outcome("c", "tile", "empty"))
    assert _states(library) == {"a": ("tile", "done"), "b": ("", "not yet"), "c": ("tile", "empty")}


def test_a_damaged_table_record_or_manifest_is_no_end(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    record(run, Outcome("a", "tile", "done", tiles=3))
    (run / "records" / "tile" / "b.json").write_text("{")
    (run / "slides.csv").write_text("slide_id,stage\n")
    (run / "manifest.csv").write_text("nothing\n")
    assert _states(Library([run])) == {"a": ("tile", "done"), "b": ("", "not yet"), "c": ("", "not yet")}


@pytest.mark.parametrize(
    ("query", "found", "total"),
    [
        (Query(), "abc", 3),
        (Query("NORTH"), "ac", 2),
        (Query("north tum"), "a", 1),
        (Query("p-b"), "b", 1),
        (Query(state="failed"), "b", 1),
        (Query("damaged"), "b", 1),
        (Query("jane"), "", 0),
        (Query(sort="state"), "bca", 3),
        (Query(sort="tiles"), "abc", 3),
        (Query(sort="label"), "bca", 3),
        (Query(start=1, count=1), "b", 3),
        (Query(start=9), "", 3),
    ],
)
def test_searching_ordering_and_paging(tmp_path: Path, query: Query, found: str, total: int) -> None:
    run = _run(tmp_path / "run")
    record(run, Outcome("a", "tile", "done", tiles=3))
    record(run, Outcome("b", "tile", "failed", "damaged", "half", "Copy."))
    page = Library([run]).page(query)
    assert "".join(row.slide_id for row in page.rows) == found
    assert (page.total, page.of) == (total, 3)


def test_several_runs_are_one_list_and_ids_must_differ(tmp_path: Path) -> None:
    first, second = _run(tmp_path / "one"), _run(tmp_path / "two", ("d", "e"))
    assert [(row.slide_id, row.run) for row in Library([first, second]).all()] == [
        ("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 1),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="slide a in"):
        Library([first, _run(tmp_path / "three", ("a",))])


def test_features_that_lie_there_without_a_run_are_slides(tmp_path: Path) -> None:
    (tmp_path / "others" / "features" / "x.zarr").mkdir(parents=True)
    library = Library([tmp_path / "others"])
    assert library.all() == [SlideRow("x", 0, "done")]
    assert Places(library).features() == [(library.all()[0], tmp_path / "others" / "features" / "x.zarr")]


def test_files_are_found_where_the_slide_was_tiled(tmp_path: Path) -> None:
    tiled, run = _run(tmp_path / "tiled"), _run(tmp_path / "run")
    for folder in ("tiles/a.zarr", "contours", "overviews", "labels"):
        (tiled / folder).mkdir(parents=True)
    for name in ("contours/a.geojson", "overviews/a.jpg", "labels/a.csv"):
        (tiled / name).write_text("x")
    (run / "features" / "a.zarr").mkdir(parents=True)
    plan(run, "embed", Request(("a",), encoder="x", stores={"a": str(tiled / "tiles" / "a.zarr")}))
    library = Library([run])
    row = library.find("a")
    assert row is not None
    files = Places(library).of(row[0])
    assert files.tiles == tiled / "tiles" / "a.zarr"
    assert files.features == run / "features" / "a.zarr"
    assert (files.contour, files.overview, files.labels) == tuple(
        tiled / name for name in ("contours/a.geojson", "overviews/a.jpg", "labels/a.csv")
    )
    assert Places(library).of(replace(row[0], slide_id="b")).tiles is None


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten thousand slides: the first embedded, one of a hundred failed."""
    run = tmp_path_factory.mktemp("many") / "run"
    prepare_run(run)
    ids = [f"slide-{number:05d}" for number in range(MANY)]
    add_slides(
        run, [SlideEntry(Path(f"/x/{name}.svs"), name, site="sites"[number % 5]) for number, name in enumerate(ids)]
    )
    plan(run, "tile", Request(tuple(ids)))
    header = "slide_id,stage,state,code,reason,remedy,tiles,mpp,mpp_source,seconds\n"
    rows = (
        f"{name},tile,{'failed,damaged' if number % 100 == 7 else 'done,'},,,{number},0.25,x,1\n"
        for number, name in enumerate(ids)
    )
    folder = run / "records" / "tile"
    folder.mkdir(parents=True)
    for name in ids:
        (folder / f"{name}.json").write_text("{}")
    (run / "slides.csv").write_text(header + "".join(rows))
    return run


def test_ten_thousand_slides_are_listed_without_opening_their_records(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "_RENEWED_S", 3.0)
    opened: list[str] = []
    real = Path.open

    def counted(self: Path, *arguments: object, **named: object) -> object:
        opened.append(self.name)
        return real(self, *arguments, **named)  # pyright: ignore

    monkeypatch.setattr(Path, "open", counted)
    with serving(ViewConfig((many,))) as ask:
        assert len(opened) < 100, "the table, the manifest, what was planned, and the page's files"
        opened.clear()
        began = time.monotonic()
        answer = ask("/api/slides?start=9900&count=200")
        assert time.monotonic() - began < 5, "some tenths of a second"
        assert len(answer.document["slides"]) == 100
        assert answer.document["total"] == MANY
        assert answer.document["states"] == {"done": 9900, "failed": 100}
        assert len(answer.body) < 50_000
        found = ask("/api/slides?text=slide-09907&state=failed").document
        assert [row["slide_id"] for row in found["slides"]] == ["slide-09907"]
        assert len(ask("/api/slides?count=100000").document["slides"]) == 500, "no more at a time"
        assert opened == []


def test_ids_that_no_run_would_give_are_left_out(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    header = "slide_id,stage,state,code,reason,remedy,tiles,mpp,mpp_source,seconds\n"
    (run / "slides.csv").write_text(f"{header}../../x,tile,done,,,,1,0.5,y,1\na,tile,done,,,,many,half,y,1\n")
    assert _states(Library([run])) == {"a": ("tile", "done"), "b": ("", "not yet"), "c": ("", "not yet")}
