"""Slides with bytes changed at random never crash, hang or surprise: tiles are marked, or the slide fails with a code.

``WSI_LMC_MUTANTS=1000`` tries more than the few that are tried by default; a failing mutant names its seed.
"""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.tiffs import Kind, halve, write_tiff
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.errors import SlideError
from wsi_lmc.grid import GridConfig
from wsi_lmc.slide import ReaderName
from wsi_lmc.steps.tile import TileConfig, TileTask, tile_slide
from wsi_lmc.tilestore import TileStore
from wsi_lmc.tissue import TissueConfig

COUNT = int(os.environ.get("WSI_LMC_MUTANTS", "60"))
KINDS = [
    Kind(tile=64),
    Kind(tile=64, rgb=True, tables=True),
    Kind(tile=64, bigtiff=True, tables=True),
    Kind(tile=64, codec="jpeg2000", aperio=True),
]
_HANGS_S = 120


def tile_mutant(path: Path, out: Path, reader: ReaderName) -> str:
    """Cut one slide in this process; "done", "empty" or the code of its failure."""
    config = TileConfig(
        GridConfig(tile_px=64, min_tissue=0.0, max_tiles=10_000), TissueConfig(min_object_um2=1000), reader=reader
    )
    try:
        outcome = tile_slide(TileTask(SlideEntry(path, "mutant"), out, config))
    except SlideError as error:
        return error.code
    store = TileStore.open(out / "tiles" / "mutant.zarr")
    store.read_checked(np.arange(len(store)))
    return outcome.state


def mutate(data: bytes, seed: int) -> bytes:
    """Change a few bytes: anywhere, or near the directories and tables at the end and the beginning."""
    random = np.random.default_rng(seed)
    mutant = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        low, high = [(0, len(data)), (0, 64), (len(data) - 3000, len(data))][int(random.integers(3))]
        mutant[int(random.integers(low, high))] = int(random.integers(256))
    if random.random() < 0.1:
        mutant = mutant[: int(random.integers(8, len(data)))]
    return bytes(mutant)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_byte_mutants_are_cut_or_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8).repeat(40, 0).repeat(44, 1)
    whole = []
    for kind in KINDS:
        whole.append(write_tiff(tmp_path / "x.tif", [pixels, halve(pixels)], kind).read_bytes())
    for data in whole:  # unharmed, all are cut
        (tmp_path / "x.tif").write_bytes(data)
        assert tile_mutant(tmp_path / "x.tif", tmp_path / "out", "direct") == "done"
        shutil.rmtree(tmp_path / "out")
    found: dict[str, int] = {}
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    readers: list[ReaderName] = ["direct", "auto"]
    try:
        for seed in range(COUNT):
            (tmp_path / "x.tif").write_bytes(mutate(whole[seed % len(whole)], seed))
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            job = pool.submit(tile_mutant, tmp_path / "x.tif", tmp_path / "out", readers[seed // len(whole) % 2])
            try:
                said = job.result(timeout=_HANGS_S)
            except BrokenProcessPool:
                pytest.fail(f"mutant {seed} killed its process")
            except Exception as error:
                raise AssertionError(f"mutant {seed}") from error
            found[said] = found.get(said, 0) + 1
    finally:
        pool.shutdown(cancel_futures=True)
    assert found.get("done", 0) > COUNT // 10, found
    assert len(found) >= 3, found
