"""What does it cost that nothing can be lost? `tile` as it is, against the same without any of its care.

Without care results are written straight to their places: no temporary, flush or rename, no lock, no note of who works,
no look for links, no record, table, request or settings, no fingerprint of the slide, no check that its directories are
whole, no digest of the store. Both are timed in every round, in turn; what counts is the ratio of medians.

    python benchmarks/big_slides.py KANG.tif big.tif --side 20000 --tile 256
    python benchmarks/bench_care.py big.tif
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import RunOptions, tile_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.tilestore import Codec

_COHORT = 5


@contextmanager
def _straight(run_folder: Path, final: Path) -> Iterator[Path]:
    """What stands in place of `publishing`."""
    del run_folder
    final.parent.mkdir(parents=True, exist_ok=True)
    yield final


@contextmanager
def _nothing(*arguments: object, **named: object) -> Iterator[bool]:
    del arguments, named
    yield True


def _no(*arguments: object, **named: object) -> None:
    del arguments, named


@contextmanager
def careless() -> Iterator[None]:
    """`tile` without its care."""
    with ExitStack() as patches:
        for name, instead in {
            "wsi_lmc.steps.tile.publishing": _straight,
            "wsi_lmc.steps.tile.publish_text": _write,
            "wsi_lmc.steps.tile.working": _nothing,
            "wsi_lmc.steps.tile.check_file": _no,
            "wsi_lmc.steps.tile.file_fingerprint": _no_text,
            "wsi_lmc.slide.opening.check_file": _no,
            "wsi_lmc.zarrio.stored_sha256": _no_text,
            "wsi_lmc.run.prepare_run": _no,
            "wsi_lmc.run.add_slides": _no,
            "wsi_lmc.run.write_resolved": _no,
            "wsi_lmc.run.plan": _no,
            "wsi_lmc.run.record": _no,
            "wsi_lmc.run.write_table": _no,
        }.items():
            patches.enter_context(patch(name, instead))
        yield


def _no_text(*arguments: object) -> str:
    del arguments
    return ""


def _write(run_folder: Path, path: Path, text: str) -> None:
    del run_folder
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _time(slide: Path, out: Path, config: TileConfig) -> float:
    """Seconds for a cohort of the same slide under several names, all of `tile` but the start of Python."""
    entries = [SlideEntry(slide, f"slide-{number}") for number in range(_COHORT)]
    began = time.perf_counter()
    outcomes = tile_cohort(entries, out, config, RunOptions(SerialExecutor()))
    took = time.perf_counter() - began
    if any(outcome.state != "done" for outcome in outcomes):
        raise SystemExit(outcomes[0].reason)
    shutil.rmtree(out)
    return took


def main() -> None:
    """Time both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mpp", type=float, help="Of slides that state none.")
    parser.add_argument("--folder", type=Path, help="On the disk to be measured.")
    given = parser.parse_args()
    codecs: tuple[Codec, ...] = ("auto", "lossless")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for slide in given.slides:
            for codec in codecs:
                config = TileConfig(codec=codec, mpp=given.mpp)
                careful: list[float] = []
                without: list[float] = []
                _time(slide, Path(folder) / "run", config)  # the first one imports and warms up
                for _ in range(given.rounds):
                    careful.append(_time(slide, Path(folder) / "run", config))
                    with careless():
                        without.append(_time(slide, Path(folder) / "run", config))
                ours, bare = statistics.median(careful) / _COHORT, statistics.median(without) / _COHORT
                ratios = sorted(one / other for one, other in zip(careful, without, strict=True))
                print(
                    f"{slide.name}, {codec}: {ours:.3f} s a slide with care, {bare:.3f} s without: "
                    f"{ours / bare - 1:+.1%} (rounds {ratios[0] - 1:+.1%} to {ratios[-1] - 1:+.1%})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
