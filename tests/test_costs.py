"""What cutting takes, against stores that were really cut, and against a machine that was really timed."""

from dataclasses import replace
from pathlib import Path

import pytest

from wsi_lmc.cohort import SlideEntry, find_slides
from wsi_lmc.costs import Machine, core_seconds, measure, sample_jpeg, store_bytes
from wsi_lmc.grid import GridConfig
from wsi_lmc.steps.audit import AuditTask, Cutting, audit_slide
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide

MACHINE = Machine(decode_s=1e-3, cores=2)
CUTTING = Cutting("lossless", 512 * 512, 256 * 256, "area", decoded=True)


def _foretold_and_real(entry: SlideEntry, out: Path, config: TileConfig) -> tuple[int, int]:
    audit = audit_slide(AuditTask(entry, config))
    outcome = tile_slide(TileTask(entry, out, config))
    assert audit.tiles == outcome.tiles > 0
    assert audit.cutting is not None
    files = (out / "tiles" / f"{entry.slide_id}.zarr").rglob("*")
    return store_bytes(audit.cutting, audit.tiles), sum(path.stat().st_size for path in files if path.is_file())


def test_bytes_that_are_kept_are_known_before(small_cohort: Path, tmp_path: Path) -> None:
    for entry in find_slides([str(small_cohort / "slides")]):
        foretold, real = _foretold_and_real(entry, tmp_path, TileConfig(grid=GridConfig(tile_mpp=0.5)))
        assert foretold <= real < 1.1 * foretold + 20_000, "all but metadata, which a small slide has, too"


@pytest.mark.real
@pytest.mark.parametrize(("codec", "tile_mpp"), [("lossless", 0.499), ("jpeg", 0.499), ("jpeg", 0.998)])
def test_bytes_of_real_tissue_are_about_those_of_real_tissue(
    real_slides: Path, tmp_path: Path, codec: str, tile_mpp: float
) -> None:
    entry = SlideEntry(real_slides / "CMU-1-Small-Region.svs", "cmu")
    config = TileConfig(grid=GridConfig(tile_mpp=tile_mpp), codec="lossless" if codec == "lossless" else "jpeg")
    foretold, real = _foretold_and_real(entry, tmp_path, config)
    assert 0.5 * foretold < real < 1.2 * foretold, "rather too much than too little"


def test_time_follows_what_there_is_to_do() -> None:
    whole = core_seconds(CUTTING, 1000, 0.5, MACHINE)
    assert core_seconds(CUTTING, 1000, 0.5, replace(MACHINE, decode_s=2e-3)) == pytest.approx(2 * whole - 0.6)
    assert core_seconds(CUTTING, 2000, 0.5, MACHINE) == pytest.approx(2 * whole - 0.6)
    kept = Cutting("kept", 256 * 256, 256 * 256, "no", decoded=True, kept_bytes=9)
    native = replace(kept, stored="lossless")
    by_openslide = replace(native, decoded=False)
    order = [core_seconds(cutting, 1000, 0.5, MACHINE) for cutting in (kept, native, by_openslide)]
    assert order == sorted(order)
    assert order[-1] > 2 * order[1]


def test_this_machine_is_timed_with_a_tile_like_one_of_tissue() -> None:
    assert 13_000 < len(sample_jpeg()) < 18_000
    machine = measure(3)
    assert machine.cores == 3
    assert 1e-5 < machine.decode_s < 0.1
    assert "on this machine" in machine.said
