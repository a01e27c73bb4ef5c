"""``wsi-lmc verify``: is everything of a run there and whole, and of what it claims to be?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_lmc.commands.common import Crew, Insecure, Quiet, Scheduler, Workers, interruptible
from wsi_lmc.progress import ProgressReport
from wsi_lmc.rerun import repair
from wsi_lmc.run import RunOptions
from wsi_lmc.runfolder import DEFAULT
from wsi_lmc.verify import Verification, to_look_at, verify


@interruptible
def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")] = DEFAULT,
    mend: Annotated[
        bool, typer.Option("--repair", help="Remove what was left behind, make anew what is damaged, verify again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    insecure: Insecure = False,
    quiet: Quiet = False,
) -> None:
    """Check every byte of a run folder, and name what is missing, damaged, left behind or not of this run.

    Reads every store in full, and writes nothing unless --repair is given. Exit code 0 if all is well, 1 if not, 2 if
    there is no such run.
    """
    found = _look(run, quiet)
    if mend and any(finding.remedy for finding in found.findings):
        again = {finding.slide for finding in found.findings if finding.slide and finding.remedy}
        with (
            Crew(workers, scheduler, insecure).executor(len(again)) as executor,
            ProgressReport("repair", len(again), quiet) as progress,
        ):
            repair(run, found.findings, RunOptions(executor, on_outcome=progress.add))
        mended, found = found.findings, _look(run, quiet)
        left = {(finding.path, finding.said) for finding in found.findings}
        for finding in mended:
            if (finding.path, finding.said) not in left:
                typer.echo(f"mended: {finding}", err=as_json)
    typer.echo(json.dumps(asdict(found)) if as_json else _as_text(found, mend))
    if found.findings:
        raise typer.Exit(1)


def _look(run: Path, quiet: bool) -> Verification:
    total = len(to_look_at(run))
    with ProgressReport("verify", total, quiet) as progress:
        return verify(run, progress.reach)


def _as_text(found: Verification, mend: bool) -> str:
    lines = [str(finding) for finding in found.findings]
    lines += [f"note: {note}" for note in found.notes]
    if not found.findings:
        return "\n".join([*lines, f"{found.stores} stores: all is well"])
    remedy = "" if mend or not any(finding.remedy for finding in found.findings) else "; --repair mends what it can"
    return "\n".join([*lines, f"{len(found.findings)} findings in {found.stores} stores{remedy}"])
