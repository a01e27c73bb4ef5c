"""Runs a stage again and again, killed before one change after another; a process of its own, see ``test_kills.py``.

Everything is imported once and each attempt is a fork, so that hundreds of kills take minutes. The parent computes
nothing itself: threads do not survive a fork.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import wsi_lmc.encoder
import wsi_lmc.steps.embed  # noqa: F401
from tests.faults.injection import Counters
from wsi_lmc.cohort import find_slides
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.executor import SerialExecutor
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, find_stores, tile_cohort, train_cohort
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import StepReport, TrainConfig
from wsi_lmc.verify import verify

ENCODER = "untrained:vit-demo"
EMBED = EmbedConfig(batch=4, block=4, device="cpu")
TRAIN = TrainConfig(architecture="vit-demo", steps=3, batch=4, device="cpu", log_every=1, checkpoint_every=1)


def tile_and_embed(slides: Path, out: Path) -> None:
    """Two stages of every slide."""
    done = tile_cohort(find_slides([str(slides)]), out, TileConfig(), RunOptions(SerialExecutor()))
    done += embed_cohort(EmbedInputs(find_stores([out])), ENCODER, out, EMBED, RunOptions(SerialExecutor()))
    failed = [outcome for outcome in done if outcome.state != "done"]
    if failed:
        raise AssertionError(failed)


def train(slides: Path, out: Path) -> None:
    """A short training on tiles that were cut before."""
    train_cohort(find_stores([slides.parent / "tiled"]), out, TRAIN, SerialExecutor(), ("resume", _ignore))


def _ignore(step: StepReport) -> None:
    del step


def inspect(out: Path, report: Path) -> None:
    """Write down what is damaged under a final name in what a kill left behind, leftovers and gaps apart."""
    findings = verify(out).findings if (out / "records").is_dir() else ()
    torn = [str(each) for each in findings if each.remedy == "anew" or (not each.remedy and "fingerprint" in each.said)]
    report.write_text(json.dumps(torn))


def in_fork(work: Callable[[], None]) -> int:
    """Run something in a child with a process group of its own; returns how it ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            work()
        except BaseException as error:  # noqa: BLE001  told to the parent by the exit code
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Arguments: the stage, slides, a folder to work in, the counters, and which changes to be killed before."""
    stage = {"run": tile_and_embed, "train": train}[sys.argv[1]]
    slides, folder, counters = Path(sys.argv[2]), Path(sys.argv[3]), Counters(Path(sys.argv[4]))
    for number in map(int, sys.argv[5].split(",")):
        out = folder / f"killed-{number}"
        counters.reset()
        os.environ["FAULT_KILL_AT"] = str(number)
        killed = in_fork(lambda out=out: stage(slides, out))
        os.environ["FAULT_KILL_AT"] = "-1"
        changes = counters.changes
        looked = in_fork(lambda out=out: inspect(out, folder / "report"))
        torn = json.loads((folder / "report").read_text()) if looked == 0 else ["could not be looked at"]
        resumed = in_fork(lambda out=out: stage(slides, out))
        found = {"change": number, "killed": killed, "changes": changes, "torn": torn, "resumed": resumed}
        sys.stdout.write(f"{json.dumps(found | {'out': str(out)})}\n")
        sys.stdout.flush()
        sys.stdin.readline()  # until it has been compared
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
