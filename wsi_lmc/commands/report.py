"""``wsi-lmc report``: one page about a run and what was made of it."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import interruptible
from wsi_lmc.report import REPORT, ReportConfig, write_report
from wsi_lmc.runfolder import DEFAULT

_DEFAULT = ReportConfig()


@interruptible
def command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folder; and, where they lie elsewhere, folders of evaluate, classify or a study."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; by default report.html in the first folder.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = _DEFAULT.title,
    overviews: Annotated[int, typer.Option(min=0, help="Overviews shown at the most.")] = _DEFAULT.overviews,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a table of slides at the most.")] = _DEFAULT.rows,
) -> None:
    """Write one HTML page about a run: slides, failures, training, evaluation, classifiers, with how to read them.

    The page needs no network and no script, and names no file, folder or machine. It may be sent and printed.
    """
    named = folders or [DEFAULT]
    path = write_report(named, output or named[0] / REPORT, ReportConfig(title, rows, overviews))
    typer.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
