"""``wsi-lmc demo``: the whole pipeline in one go."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import Crew, Pseudonyms, Quiet, Workers, interruptible
from wsi_lmc.demo import DemoConfig, Hearers, run_demo
from wsi_lmc.encoder import Architecture
from wsi_lmc.evaluation import gains_text, report_text
from wsi_lmc.progress import ProgressReport
from wsi_lmc.runfolder import SLIDES, prepare_run
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.training import StepReport


@interruptible
def command(
    slides: Annotated[
        list[str] | None,
        typer.Argument(help="Slides, or a manifest.csv whose column site names two sites; by default synthetic ones."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("wsi-lmc-demo"),
    steps: Annotated[int, typer.Option(help="Training steps.")] = DemoConfig.steps,
    encoder: Annotated[
        Architecture,
        typer.Option(help="vit-tiny is the paper's network; vit-demo trains on two cores in a minute or two."),
    ] = DemoConfig.architecture,
    seed: Annotated[int, typer.Option(help="Decides slides, weights and views.")] = 0,
    mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel of slides whose files state none.")
    ] = None,
    pseudonyms: Pseudonyms = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Tile, train, embed and evaluate in one go, and name the pictures and numbers to look at.

    Without slides on a small synthetic cohort of two sites, which needs no data and no network.
    """
    prepare_run(output, slides or [])
    config = DemoConfig(steps=steps, architecture=encoder, seed=seed, tile=TileConfig(mpp=mpp), pseudonyms=pseudonyms)
    with Crew(workers).executor(2) as executor, ProgressReport("train", steps, quiet) as progress:

        def heard(step: StepReport) -> None:
            loss = step.metrics.get("invariance")
            progress.reach(step.step, "" if loss is None else f"invariance {loss:.1f}")

        result = run_demo(slides or [], output, config, executor, Hearers(progress.line, heard))
    if result.evaluation is not None:
        typer.echo(report_text(result.evaluation))
        typer.echo(f"\n{gains_text(result.evaluation)}")
        typer.echo(
            "\nBrackets: 95 % interval; floor: what there is without a batch effect; chance: what guessing gives."
        )
    else:
        typer.echo(f"No comparison of sites: {result.why_not}")
    typer.echo("\nLook at the report first:")
    for file in (*result.files, output / SLIDES):
        typer.echo(f"  {file}")
    failed = [outcome for outcome in result.outcomes if outcome.state == "failed"]
    for outcome in failed:
        typer.echo(f"{outcome.slide_id}: {outcome.code}: {outcome.reason}. {outcome.remedy}", err=True)
    if failed:
        raise typer.Exit(1)
