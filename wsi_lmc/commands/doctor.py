"""``wsi-lmc doctor``: is this machine and installation fit for work?"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from wsi_lmc import __version__
from wsi_lmc.commands.text import printable
from wsi_lmc.doctor import examine
from wsi_lmc.doctor.check import State

DEFAULT_OUTPUT = Path("wsi-lmc-run")  # runfolder's, which may not be importable where something is broken


def command(
    out: Annotated[Path, typer.Argument(help="Output folder whose disk is tried; it need not exist.")] = DEFAULT_OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Try for real what a run needs: versions, codecs, slides, devices, locks and disk of OUT, worker processes.

    Each check is ok, a warning or failed, with what to do. What it writes for that it removes again. Exit code 2 where
    anything has failed.
    """
    checks = examine(out)
    found = Counter(check.state for check in checks)
    counts = {state: found[state] for state in get_args(State)}
    if as_json:
        typer.echo(json.dumps({"wsi_lmc": __version__, "checks": [asdict(check) for check in checks], **counts}))
    else:
        for check in checks:
            typer.echo(printable(f"{check.state:<8}{check.name}: {check.found}"))
            if check.remedy:
                typer.echo(printable(f"{'':<8}{check.remedy}"))
        typer.echo(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['failed']} failed")
    if counts["failed"]:
        raise typer.Exit(2)
