"""``wsi-lmc tile``: slides to tile stores."""

import os
from typing import Annotated

import typer

from wsi_lmc.commands.common import (
    Cluster,
    ConfigFile,
    Crew,
    Insecure,
    Mask,
    Output,
    Overwrite,
    Pseudonyms,
    Quiet,
    Scheduler,
    ShardText,
    SlideTimeout,
    Workers,
    close,
    jobs_for,
    resolve,
    with_settings,
)  # fmt: skip
from wsi_lmc.division import WHOLE, parse_shard
from wsi_lmc.progress import ProgressReport
from wsi_lmc.pseudonyms import find_named_slides
from wsi_lmc.run import CHECKPOINT, RunOptions, tile_cohort
from wsi_lmc.runfolder import DEFAULT, prepare_run
from wsi_lmc.steps.tile import TileConfig


@with_settings({"tile": TileConfig})
def command(
    slides: Annotated[list[str], typer.Argument(help="Slides, folders, patterns in quotes, or a manifest.csv.")],
    given: dict[str, dict[str, object]],
    output: Output = DEFAULT,
    config: ConfigFile = None,
    mask: Mask = None,
    pseudonyms: Pseudonyms = None,
    overwrite: Overwrite = False,
    shard: ShardText = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    insecure: Insecure = False,
    cluster: Cluster = None,
    slide_timeout: SlideTimeout = 7200.0,
    quiet: Quiet = False,
) -> None:
    """Find the tissue of slides and cut it into calibrated tiles.

    Writes OUT/tiles/<slide_id>.zarr, overviews to look at, contours for QuPath, and slides.csv with every slide's
    outcome. Running it again does only what is missing. Exit code 1 if any slide failed.
    """
    settings = resolve("tile", TileConfig, config, given)
    share = parse_shard(shard, os.environ)
    jobs = jobs_for("cpu", cluster, scheduler)
    entries = find_named_slides(slides, pseudonyms, output)
    total = share.size(len(entries))
    prepare_run(output, slides)
    with (
        Crew(workers, scheduler, insecure, jobs, slide_timeout).executor(total) as executor,
        ProgressReport("tile", total, quiet) as progress,
    ):
        options = RunOptions(executor, mask, overwrite, progress.add, share)
        outcomes = tile_cohort(entries, output, settings, options)
    train = "wsi-lmc train" if output == DEFAULT else f"wsi-lmc train {output} -o {output / CHECKPOINT}"
    following = f"look at {output / 'overviews'}, then: {train}"
    close(outcomes, output, following if share == WHOLE else f"wsi-lmc status {output}")
