"""The run folder: one record a slide and stage, one row a slide, nothing of other slides lost."""

import csv
from pathlib import Path

import pytest

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import UsageError
from wsi_lmc.runfolder import add_slides, list_slides, outcomes, plan, planned_slides, prepare_run, record, write_table
from wsi_lmc.steps.outcome import Outcome


def _rows(out: Path) -> dict[str, dict[str, str]]:
    write_table(out)
    with (out / "slides.csv").open(newline="") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def test_a_row_is_of_the_last_stage(tmp_path: Path) -> None:
    record(tmp_path, Outcome("b", "tile", "done", tiles=5, mpp=0.499, mpp_source="aperio.MPP"))
    record(tmp_path, Outcome("a", "tile", "failed", "damaged", "half a file", "Copy it."))
    assert list(_rows(tmp_path)) == ["a", "b"]
    record(tmp_path, Outcome("b", "embed", "done", tiles=5, mpp=0.499, mpp_source="aperio.MPP"))
    rows = _rows(tmp_path)
    assert (rows["b"]["stage"], rows["b"]["tiles"], rows["b"]["mpp"]) == ("embed", "5", "0.499")
    assert (rows["a"]["state"], rows["a"]["code"], rows["a"]["remedy"]) == ("failed", "damaged", "Copy it.")


def test_a_failure_in_embedding_is_not_hidden_by_its_tiles(tmp_path: Path) -> None:
    record(tmp_path, Outcome("a", "tile", "done", tiles=5))
    record(tmp_path, Outcome("a", "embed", "failed", "io", "disk", "Look."))
    assert _rows(tmp_path)["a"]["state"] == "failed"


def test_a_result_that_was_there_keeps_the_record_of_its_making(tmp_path: Path) -> None:
    record(tmp_path, Outcome("a", "tile", "done", tiles=5, seconds=7.5))
    record(tmp_path, Outcome("a", "tile", "done", tiles=5, seconds=0.01, fresh=False))
    assert outcomes(tmp_path, "tile")[0].seconds == 7.5
    record(tmp_path, Outcome("a", "tile", "failed", "missing", "gone", "Look."))
    record(tmp_path, Outcome("a", "tile", "done", tiles=5, seconds=0.01, fresh=False))
    assert outcomes(tmp_path, "tile")[0].state == "done"


def test_a_traceback_goes_to_the_log(tmp_path: Path) -> None:
    record(tmp_path, Outcome("a", "tile", "failed", "internal", "bug", "Report it.", detail="Traceback ..."))
    assert (tmp_path / "logs" / "tile-a.txt").read_text() == "Traceback ..."


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    record(tmp_path, Outcome("a", "tile", "failed", "damaged", '=HYPERLINK("x")', "-1+1"))
    row = _rows(tmp_path)["a"]
    assert row["reason"].startswith("'=")
    assert row["remedy"].startswith("'-")


def test_slides_are_added_to_the_manifest(tmp_path: Path) -> None:
    add_slides(tmp_path, [SlideEntry(tmp_path / "b.svs", "b", site="north"), SlideEntry(tmp_path / "a.svs", "a")])
    add_slides(tmp_path, [SlideEntry(tmp_path / "c.svs", "c"), SlideEntry(tmp_path / "a.svs", "a", label="1")])
    assert [(entry.slide_id, entry.site, entry.label) for entry in list_slides(tmp_path)] == [
        ("a", "", "1"),
        ("b", "north", ""),
        ("c", "", ""),
    ]


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside the input"):
        prepare_run(tmp_path / "slides" / "out", [str(tmp_path / "slides"), str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        prepare_run(tmp_path / "out")


def test_plans_add_up_and_the_same_cohort_is_one(tmp_path: Path) -> None:
    assert planned_slides(tmp_path, "tile") == set()
    plan(tmp_path, "tile", ["b", "a"])
    plan(tmp_path, "tile", ["a", "b"])
    assert len(list((tmp_path / "records" / "planned").iterdir())) == 1
    plan(tmp_path, "tile", ["c"])
    plan(tmp_path, "embed", ["a"])
    assert planned_slides(tmp_path, "tile") == {"a", "b", "c"}
    assert planned_slides(tmp_path, "embed") == {"a"}


def test_a_folder_without_plans_has_those_of_its_manifest(tmp_path: Path) -> None:
    add_slides(tmp_path, [SlideEntry(tmp_path / "b.svs", "b"), SlideEntry(tmp_path / "a.svs", "a")])
    record(tmp_path, Outcome("b", "tile", "done", tiles=5))
    assert planned_slides(tmp_path, "tile") == {"a", "b"}
    assert planned_slides(tmp_path, "embed") == set()
