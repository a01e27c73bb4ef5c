"""``wsi-lmc export``: features in the files other tools read."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.export import Target, export_features
from wsi_lmc.run import find_features
from wsi_lmc.runfolder import DEFAULT, list_slides


def command(
    to: Annotated[Target, typer.Option(help="Whose layout: trident (also Patho-Bench and TITAN) or clam.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the exported files.")],
    run: Annotated[Path, typer.Argument(help="Run folder.")] = DEFAULT,
) -> None:
    """Write a run's features as another tool reads them; tiles that could not be read are left out.

    CLAM's dataset.csv holds the patients and labels of the manifest that the slides came from.
    """
    stores = find_features(run)
    labels = {entry.slide_id: (entry.patient, entry.label) for entry in list_slides(run)}
    result = export_features(stores, to, output, labels)
    for slide in result.skipped:
        typer.echo(f"{slide.slide_id}: {slide.reason}", err=True)
    for slide_id, count in result.dropped.items():
        typer.echo(f"{slide_id}: {count} unreadable tiles left out", err=True)
    typer.echo(f"{len(result.files)} files in {output}, as {to} reads them")
