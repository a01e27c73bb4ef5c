"""What `plan` foretells of every slide of the corpus is what becomes of it; damage deep inside only `tile` can find."""

import pytest

from tests.faults.corpus import FILES, Case
from tests.faults.samples import SIDE
from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.cohort import find_slides
from wsi_lmc.grid import GridConfig
from wsi_lmc.preflight import audit_cohort
from wsi_lmc.run import RunOptions
from wsi_lmc.steps.audit import Audit
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tissue import TissueConfig

CONFIG = TileConfig(GridConfig(tile_px=SIDE), TissueConfig(min_object_um2=1000))
_UNFORESEEN = "unreadable_tiles"


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Audit]:
    """An audit of each file of the corpus, by its name."""
    slides = tmp_path_factory.mktemp("corpus")
    for case in FILES:
        case.make(slides / case.name)
    entries = find_slides([str(slides)])
    with make_executor(LocalWorkers(2)) as executor:
        found = audit_cohort(entries, CONFIG, RunOptions(executor))
    return {entry.path.name: audit for entry, audit in zip(entries, found, strict=True)}


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name, marks=pytest.mark.row(c.row)) for c in FILES])
def test_what_becomes_of_a_slide_is_foretold(case: Case, audits: dict[str, Audit]) -> None:
    audit = audits[case.name]
    assert audit.detail == "", "nobody foresaw this"
    if case.expected != _UNFORESEEN:
        assert (audit.code or audit.state) == case.expected, audit.reason
    assert (audit.tiles > 0) == (audit.state == "done")
