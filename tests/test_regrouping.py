"""Sites, labels and groups from any column of a manifest."""

from pathlib import Path

import pytest

from wsi_lmc.errors import UsageError
from wsi_lmc.regrouping import Columns, regroup

from tests.planted import Planted, planted_set  # isort: skip

SETS = [planted_set("set", Planted(groups=2))]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A scanner, a grade and a block for each of the four slides."""
    path = tmp_path / "manifest.csv"
    path.write_text(
        "slide,slide_id,scanner,grade,block\n"
        "x1.svs,south-1,S360,high,\nx2.svs,north-0,CS2,low,b1\nx3.svs,north-1,S360,,b1\nx4.svs,south-0,CS2,high,b2\n"
    )
    return path


def test_own_columns_change_nothing() -> None:
    assert regroup(SETS, Columns(), None)[0] == SETS[0]
    assert [s.patient for s in regroup(SETS, Columns(group="slide"), None)[0].slides] == [
        "north-0", "north-1", "south-0", "south-1"
    ]  # fmt: skip


def test_other_columns_are_taken(manifest: Path) -> None:
    found = regroup(SETS, Columns("scanner", "grade", "block"), manifest)[0]
    assert found.sites == ("CS2", "S360")
    assert found.classes == ("high", "low")
    assert {s.slide_id: (s.site, s.patient, set(s.labels.tolist())) for s in found.slides} == {
        "north-0": ("CS2", "b1", {1}),
        "north-1": ("S360", "b1", {-1}),
        "south-0": ("CS2", "b2", {0}),
        "south-1": ("S360", "south-1", {0}),
    }


def test_what_is_missing_is_said(manifest: Path) -> None:
    with pytest.raises(UsageError, match="scanner without a manifest"):
        regroup(SETS, Columns("scanner"), None)
    with pytest.raises(UsageError, match="a column hospital"):
        regroup(SETS, Columns("hospital"), manifest)
    manifest.write_text("slide,slide_id,scanner\na.svs,north-0,CS2\n")
    with pytest.raises(UsageError, match="north-1 stands not in"):
        regroup(SETS, Columns("scanner"), manifest)
