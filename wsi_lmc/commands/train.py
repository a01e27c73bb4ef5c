"""``wsi-lmc train``: tile stores of one site to an encoder."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.cluster import LocalWorkers, make_executor
from wsi_lmc.commands.common import Cluster, ConfigFile, Insecure, Quiet, Scheduler, jobs_for, resolve, with_settings
from wsi_lmc.errors import UsageError
from wsi_lmc.jobqueue import JobConfig
from wsi_lmc.progress import ProgressReport
from wsi_lmc.run import CHECKPOINT, find_stores, train_cohort
from wsi_lmc.runfolder import DEFAULT
from wsi_lmc.training import StepReport, TrainConfig, TrainResult


@with_settings({"train": TrainConfig})
def command(
    given: dict[str, dict[str, object]],
    stores: Annotated[
        list[Path] | None, typer.Argument(help="Run folders or tile stores of ONE site; by default wsi-lmc-run.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder.")] = DEFAULT / CHECKPOINT,
    config: ConfigFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest saved state, if any.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove an earlier training first.")] = False,
    scheduler: Scheduler = None,
    insecure: Insecure = False,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Train an encoder for which a tile looks the same however strongly it is stained (LMC).

    Needs unlabelled tiles of one site only. Writes the encoder (loadable by timm), states to resume from,
    metrics.jsonl, TensorBoard events and provenance.json. With --scheduler it runs on a worker with the resource GPU,
    with --cluster in one job on one GPU; "torchrun --nproc-per-node N -m wsi_lmc train ..." shares every batch among N
    GPUs, with the same result.
    """
    first = os.environ.get("RANK", "0") == "0"  # torchrun's numbering of its processes
    settings = resolve("train", TrainConfig, config, given)
    jobs = _one_job(cluster, scheduler)
    paths = find_stores(stores or [DEFAULT])
    start = "overwrite" if overwrite else "resume" if resume else "new"
    with (
        make_executor(jobs or LocalWorkers(0), scheduler, insecure) as executor,
        ProgressReport("train", settings.steps, quiet or not first) as progress,
    ):

        def report(step: StepReport) -> None:
            progress.reach(step.step, " ".join(f"{name} {value:.3f}" for name, value in _shown(step).items()))

        result = train_cohort(paths, output, settings, executor, (start, report))
    if not first:
        return
    fell = ", ".join(f"{name} {_fall(result, name)}" for name in ("invariance", "loss"))
    typer.echo(f"{result.steps} steps on {result.device}; before -> after on held-out tiles: {fell}")
    typer.echo(f"encoder in {output}; next: wsi-lmc embed --ckpt {output}")


def _one_job(cluster: Path | None, scheduler: str | None) -> JobConfig | None:
    """What training uses of a cluster: one job with one GPU."""
    jobs = jobs_for("gpu", cluster, scheduler)
    if jobs is None:
        return None
    if not jobs.gpus:
        raise UsageError(f"no jobs with GPUs in {cluster}", "gpus: 1 in its section gpu:", "Add it.")
    return replace(jobs, jobs=1, gpus=1)


def _fall(result: TrainResult, name: str) -> str:
    key = f"held_out_{name}"
    return f"{result.before[key]:.1f} -> {result.after[key]:.1f}"


def _shown(step: StepReport) -> dict[str, float]:
    return {name: step.metrics[name] for name in ("loss", "invariance") if name in step.metrics}
