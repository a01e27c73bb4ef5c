"""Stages of a run on request, each in a child of its own that can be killed: a process of its own, see ``Stages``.

Everything is imported once and each request is a fork, so that hundreds of kills take minutes. The parent computes
nothing itself: threads do not survive a fork.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import wsi_lmc.encoder
import wsi_lmc.steps.embed  # noqa: F401
from tests.faults.injection import Counters, faulty
from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.grid import GridConfig
from wsi_lmc.rerun import repair
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, tile_cohort, train_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import StepReport, TrainConfig
from wsi_lmc.verify import verify

ENCODER = "untrained:vit-demo"
EMBED = EmbedConfig(batch=4, block=4, device="cpu")
TRAIN = TrainConfig(architecture="vit-demo", steps=3, batch=4, device="cpu", log_every=1, checkpoint_every=1)
NEVER = -1
Found = list[list[str]]


def tile_and_embed(slides: Path, out: Path, tile_px: int = 256, overwrite: bool = False) -> Found:
    """Two stages of every slide; tells each slide's outcomes."""
    options = RunOptions(SerialExecutor(), overwrite=overwrite)
    done = tile_cohort(find_slides([str(slides)]), out, TileConfig(GridConfig(tile_px=tile_px)), options)
    done += embed_cohort(EmbedInputs(find_stores([out])), ENCODER, out, EMBED, options)
    return [[outcome.slide_id, outcome.stage, outcome.state, outcome.code] for outcome in done]


def train(slides: Path, out: Path) -> Found:
    """A short training on tiles that were cut before."""
    train_cohort(find_stores([slides.parent / "tiled"]), out, TRAIN, SerialExecutor(), ("resume", _ignore))
    return []


def look(slides: Path, out: Path) -> Found:
    """What `verify` finds."""
    del slides
    found = verify(out).findings if (out / "records").is_dir() else ()
    return [[finding.path, finding.said, finding.remedy] for finding in found]


def mend(slides: Path, out: Path) -> Found:
    """What is still found once it has been mended."""
    repair(out, verify(out).findings, RunOptions(SerialExecutor()))
    return look(slides, out)


def _ignore(step: StepReport) -> None:
    del step


WORK: dict[str, Callable[..., Found]] = {"run": tile_and_embed, "train": train, "look": look, "mend": mend}


class Stages:
    """The process that does what it is asked; a context manager.

    ``meant`` is the part of the paths whose changes count: a child can be killed before any of them.
    """

    def __init__(self, shim: Path, counters: Counters, meant: str) -> None:
        self._counters = counters
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stages"],
            env=faulty(shim, counters, writes=meant),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def do(self, work: str, slides: Path, out: Path, kill_at: int = NEVER, **options: object) -> tuple[int, Found]:
        """Ask for work; its exit status (-9: killed), and what it told."""
        self._counters.reset()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"work": work, "slides": str(slides), "out": str(out), "kill_at": kill_at, "options": options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: list[Any] = json.loads(self._process.stdout.readline())
        return int(answer[0]), answer[1]

    def __enter__(self) -> "Stages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)


def main() -> None:
    """Serve requests, a line of JSON each, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["FAULT_KILL_AT"] = str(request["kill_at"])
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.write(writer, json.dumps(_serve(request)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps([status, json.loads(told) if told else []]) + "\n")
        sys.stdout.flush()


def _serve(request: dict[str, Any]) -> Found:
    try:
        work = WORK[request["work"]]
        return work(Path(request["slides"]), Path(request["out"]), **request["options"])
    except BaseException as error:  # noqa: BLE001  told to the parent by the exit code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(3)


if __name__ == "__main__":
    main()
