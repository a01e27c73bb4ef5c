"""Slides with bytes changed at random never crash, hang or surprise: tiles are marked, or the slide fails with a code.

Every mutant is made of its seed, which a failure names. ``WSI_LMC_MUTANTS=2000`` tries as many of the real slides, and
half as many of synthetic ones, instead of the few that are tried by default; with ``-s`` the counts are printed.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import tifffile

from tests.faults.victims import Victim, scratch
from tests.tiffs import Kind, halve, write_tiff
from wsi_lmc.cohort import SlideEntry
from wsi_lmc.grid import GridConfig
from wsi_lmc.slide import ReaderName
from wsi_lmc.steps.tile import TileConfig, TileTask
from wsi_lmc.tissue import TissueConfig

COUNT = int(os.environ.get("WSI_LMC_MUTANTS", "40"))
REAL = (
    "CMU-1-Small-Region.svs",
    "tcga-cr-7395-01a-01-ts1.svs",
    "camelyon16_tumor_001_level5.tif",
    "camelyon16_jpeg_baseline.dcm",
)
KINDS = [
    Kind(tile=64),
    Kind(tile=64, rgb=True, tables=True),
    Kind(tile=64, bigtiff=True, tables=True),
    Kind(tile=64, codec="jpeg2000", aperio=True),
]
READERS: tuple[ReaderName, ...] = ("auto", "direct", "auto", "openslide", "tiffslide")
_HANGS_S = 300  # far more than any needs, also on a machine that others use
_AT_ONCE = 2
_LONGEST = 4096  # bytes of one field that are likely to be changed

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Whole:
    """A slide that is whole, the bytes of it that say how it is to be read, and how it is cut."""

    data: bytes
    suffix: str
    structure: Ranges
    config: TileConfig


def mutate(whole: Whole, seed: int) -> bytes:
    """Change a few bytes: anywhere, or among those that say how the others are to be read."""
    random = np.random.default_rng(seed)
    mutant = bytearray(whole.data)
    for _ in range(int(random.integers(1, 7))):
        low, high = (0, len(mutant))
        if random.random() < 0.4:
            low, high = whole.structure[int(random.integers(len(whole.structure)))]
        mutant[int(random.integers(low, min(high, len(mutant))))] = int(random.integers(256))
    if random.random() < 0.1:
        mutant = mutant[: int(random.integers(8, len(mutant)))]
    return bytes(mutant)


def structure_of(path: Path) -> Ranges:
    """Directories of a TIFF, the fields they point to, and where its first tiles begin; else a file's first bytes."""
    try:
        with tifffile.TiffFile(path) as file:
            found: list[tuple[int, int]] = []
            for page in file.pages:
                assert isinstance(page, tifffile.TiffPage)
                found.append((page.offset, page.offset + 20 * len(page.tags)))
                fields = [tag for tag in page.tags if tag.valueoffset > 0 and tag.valuebytecount > 8]
                found += [(tag.valueoffset, tag.valueoffset + min(tag.valuebytecount, _LONGEST)) for tag in fields]
                found += [(start, start + 64) for start in page.dataoffsets[:3]]
            return tuple(found)
    except tifffile.TiffFileError:
        return ((0, _LONGEST), (0, 1024))


@contextmanager
def _victims(count: int) -> Iterator["SimpleQueue[tuple[int, Victim]]"]:
    made = [Victim(_HANGS_S) for _ in range(count)]
    idle: SimpleQueue[tuple[int, Victim]] = SimpleQueue()
    for number, victim in enumerate(made):
        idle.put((number, victim))
    try:
        yield idle
    finally:
        for victim in made:
            victim.close()


def _cut_all(wholes: list[Whole], seeds: Iterable[int], folder: Path) -> dict[int, str]:
    """What becomes of each seed's mutant."""
    lock = threading.Lock()
    found: dict[int, str] = {}
    with _victims(_AT_ONCE) as idle, ThreadPoolExecutor(_AT_ONCE) as pool:

        def one(seed: int) -> None:
            whole = wholes[seed % len(wholes)]
            number, victim = idle.get()
            place = scratch(folder, number)
            path = place / f"mutant{whole.suffix}"
            path.write_bytes(mutate(whole, seed) if seed >= 0 else whole.data)
            config = whole.config if seed < 0 else _with_reader(whole.config, READERS[seed // len(wholes) % 5])
            try:
                said = victim.cut(TileTask(SlideEntry(path, "mutant", "0.5"), place / "out", config))
            except AssertionError as error:
                said = f"bare exception: {error}"
            finally:
                idle.put((number, victim))
            with lock:
                found[seed] = said

        list(pool.map(one, seeds))
    return found


def _with_reader(config: TileConfig, reader: ReaderName) -> TileConfig:
    return TileConfig(config.grid, config.tissue, reader=reader)


def _judge(found: dict[int, str]) -> None:
    counts = Counter(said.splitlines()[0] for said in found.values())
    sys.stdout.write(f"{len(found)} mutants, seeds {min(found)} to {max(found)}: {dict(counts.most_common())}\n")
    wrong = {seed: said for seed, said in found.items() if said in ("died", "hangs") or said.startswith("bare")}
    assert not wrong, "\n".join(f"seed {seed}: {said}" for seed, said in wrong.items())
    assert counts["done"] > len(found) // 10, "else nothing but the first check was tried"
    assert len(counts) >= 3


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> list[Whole]:
    """Pyramids of every kind that is decoded directly."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8).repeat(40, 0).repeat(44, 1)
    grid, tissue = GridConfig(tile_px=64, min_tissue=0.0, max_tiles=10_000), TissueConfig(min_object_um2=1000)
    path = tmp_path_factory.mktemp("synthetic") / "x.tif"
    made: list[Whole] = []
    for kind in KINDS:
        write_tiff(path, [pixels, halve(pixels)], kind)
        made.append(Whole(path.read_bytes(), path.suffix, structure_of(path), TileConfig(grid, tissue)))
    return made


@pytest.fixture(scope="module")
def real(real_slides: Path) -> list[Whole]:
    """The small real slides: Aperio in JPEG and JPEG 2000, a generic TIFF, and DICOM; none too large."""
    grid = GridConfig(tile_mpp=1.0, tile_px=128, min_tissue=0.0, max_tiles=100_000)
    paths = [real_slides / name for name in REAL]
    return [Whole(path.read_bytes(), path.suffix, structure_of(path), TileConfig(grid)) for path in paths]


@pytest.mark.row(7)
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_mutants_of_synthetic_slides_are_cut_or_refused(synthetic: list[Whole], tmp_path: Path) -> None:
    assert set(_cut_all(synthetic, range(-len(KINDS), 0), tmp_path).values()) == {"done"}, "unharmed, all are cut"
    _judge(_cut_all(synthetic, range(COUNT // 2), tmp_path))


@pytest.mark.row(7)
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_mutants_of_real_slides_are_cut_or_refused(real: list[Whole], tmp_path: Path) -> None:
    assert set(_cut_all(real, range(-len(REAL), 0), tmp_path).values()) == {"done"}, "unharmed, all are cut"
    _judge(_cut_all(real, range(COUNT), tmp_path))
