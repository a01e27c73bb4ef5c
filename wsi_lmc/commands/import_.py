"""``wsi-lmc import``: features that other tools made to feature stores."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import (
    ConfigFile,
    Crew,
    Output,
    Overwrite,
    Pseudonyms,
    Quiet,
    SlideTimeout,
    Workers,
    close,
    resolve,
    with_settings,
)  # fmt: skip
from wsi_lmc.importing import ImportConfig, ImportInputs, Layout, find_imports, hide, import_cohort, target_mpps
from wsi_lmc.progress import ProgressReport
from wsi_lmc.run import RunOptions
from wsi_lmc.runfolder import DEFAULT, prepare_run

_ALIKE = 1.02  # within 2 % a level counts as native, too


@with_settings({"import": ImportConfig})
def command(
    folder: Annotated[
        Path,
        typer.Argument(help="TRIDENT's --job_dir, or a folder of one patching or encoder in it; CLAM's --feat_dir."),
    ],
    layout: Annotated[Layout, typer.Option("--from", help="Whose files these are.")],
    given: dict[str, dict[str, object]],
    output: Output = DEFAULT,
    patches: Annotated[
        Path | None, typer.Option(help="Folder of the patches' files, where it does not lie beside the features.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV with columns slide and mpp (level 0), patient, site, label, slide_id where known."),
    ] = None,
    pseudonyms: Pseudonyms = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    workers: Workers = None,
    slide_timeout: SlideTimeout = 7200.0,
    quiet: Quiet = False,
) -> None:
    """Take features that TRIDENT or CLAM made, for evaluate, classify, report and export.

    Writes OUT/features/<slide_id>.zarr and slides.csv. No magnification is turned into a pixel size: where the files
    state none, give --mpp or a column mpp in --manifest. Running it again does only what is missing. Exit code 1 if
    any slide failed.
    """
    settings = resolve("import", ImportConfig, config, given)
    candidates, notes = find_imports(ImportInputs(layout, folder, settings.encoder, patches, manifest))
    if pseudonyms is not None:
        candidates = hide(candidates, pseudonyms, output)
    prepare_run(output, [str(folder)])
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    with (
        Crew(workers, timeout_s=slide_timeout).executor(len(candidates)) as executor,
        ProgressReport("import", len(candidates), quiet) as progress,
    ):
        options = RunOptions(executor, overwrite=overwrite, on_outcome=progress.add)
        outcomes = import_cohort(candidates, layout, output, settings, options)
    sizes = target_mpps(output, outcomes)
    if sizes is not None and sizes[1] > sizes[0] * _ALIKE:
        typer.echo(
            f"note: tiles of {sizes[0]:.4g} to {sizes[1]:.4g} um/px: one magnification by name, several by size",
            err=True,
        )
    close(outcomes, output, f"wsi-lmc evaluate {candidates[0].encoder}={output}")
