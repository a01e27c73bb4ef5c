"""``wsi-lmc pack``: images that are tiles already to tile stores."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_lmc.commands.common import (
    ConfigFile,
    Crew,
    Output,
    Overwrite,
    Quiet,
    SlideTimeout,
    Workers,
    close,
    resolve,
    with_settings,
)  # fmt: skip
from wsi_lmc.imagelists import ImageInputs, parse_columns
from wsi_lmc.packing import find_groups, pack_cohort
from wsi_lmc.patches import PackConfig
from wsi_lmc.progress import ProgressReport
from wsi_lmc.run import CHECKPOINT, RunOptions
from wsi_lmc.runfolder import DEFAULT, prepare_run


@with_settings({"pack": PackConfig})
def command(
    given: dict[str, dict[str, object]],
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of images; of a manifest, those meant.")] = None,
    output: Output = DEFAULT,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV with a column file (relative to it); where known site, label, group (patient), mpp."),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COLUMN", help="The manifest's own names: site=domain,group=case.")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Site of images whose row states none; by default several folders are one each."),
    ] = None,
    labels_from: Annotated[
        Literal["nothing", "folder"],
        typer.Option(help="folder: an image's label is the name of its folder."),
    ] = "nothing",
    group_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression that finds the group (its first bracket) in a path below FOLDERS."),
    ] = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    workers: Workers = None,
    slide_timeout: SlideTimeout = 7200.0,
    quiet: Quiet = False,
) -> None:
    """Pack folders of images (PNG, JPEG, TIFF, BMP) into tile stores, one for each group (patient, slide) of a site.

    Writes OUT/tiles/<slide_id>.zarr, labels/<slide_id>.csv, images/<slide_id>.csv (which files, in which order) and
    slides.csv, so that train, embed and what follows take them as slides' tiles. What nobody states stays empty: an
    image without a group is a group of its own. Running it again does only what is missing. Exit code 1 if any group
    failed.
    """
    settings = resolve("pack", PackConfig, config, given)
    inputs = ImageInputs(folders or (), manifest, parse_columns(columns or ()), labels_from, group_pattern, site)
    prepare_run(output, [str(folder) for folder in inputs.folders])
    groups, notes = find_groups(inputs, output, settings)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    with (
        Crew(workers, timeout_s=slide_timeout).executor(len(groups)) as executor,
        ProgressReport("pack", len(groups), quiet) as progress,
    ):
        options = RunOptions(executor, overwrite=overwrite, on_outcome=progress.add)
        outcomes = pack_cohort(groups, output, settings, options)
    sites = sorted({group.site or "no site" for group in groups})
    images = sum(len(group.images) for group in groups)
    typer.echo(f"{images} images of {', '.join(sites)} in {len(groups)} groups")
    train = "wsi-lmc train" if output == DEFAULT else f"wsi-lmc train {output} -o {output / CHECKPOINT}"
    close(outcomes, output, f"{train}, or: wsi-lmc embed {output} --ckpt CKPT -o {output}")
