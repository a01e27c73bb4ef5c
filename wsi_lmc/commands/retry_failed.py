"""``wsi-lmc retry-failed``: the slides of a run that failed, once more."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import (
    Cluster,
    Crew,
    Insecure,
    Quiet,
    Scheduler,
    SlideTimeout,
    Workers,
    close,
    interruptible,
    jobs_for,
)  # fmt: skip
from wsi_lmc.progress import ProgressReport
from wsi_lmc.rerun import failed_slides, rerun
from wsi_lmc.run import RunOptions
from wsi_lmc.runfolder import DEFAULT, STAGES, prepare_run
from wsi_lmc.steps.outcome import Outcome, Stage


@interruptible
def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")] = DEFAULT,
    workers: Workers = None,
    scheduler: Scheduler = None,
    insecure: Insecure = False,
    cluster: Cluster = None,
    slide_timeout: SlideTimeout = 86400.0,
    quiet: Quiet = False,
) -> None:
    """Try again what failed, with the settings it failed with: after the disk, the files or the memory were seen to.

    Slides whose names coincide, which were replaced, or were made with other settings, need a command of their own.
    Exit code 1 if any slide failed again.
    """
    jobs = jobs_for("gpu", cluster, scheduler)
    failed: dict[Stage, list[str]] = {stage: failed_slides(run, stage) for stage in STAGES}
    count = sum(map(len, failed.values()))
    if not count:
        typer.echo(f"no slide of {run} has failed for a reason that may have passed")
        return
    prepare_run(run)
    outcomes: list[Outcome] = []
    with (
        Crew(workers, scheduler, insecure, jobs, slide_timeout).executor(count) as executor,
        ProgressReport("retry", count, quiet) as progress,
    ):
        for stage, slides in failed.items():
            if slides:
                outcomes += rerun(run, stage, slides, RunOptions(executor, on_outcome=progress.add))
    newly_tiled = any(outcome.stage == "tile" and outcome.state == "done" for outcome in outcomes)
    close(outcomes, run, "the embed command as before, for the slides that have tiles now" if newly_tiled else "")
