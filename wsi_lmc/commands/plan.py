"""``wsi-lmc plan``: a cohort looked at before any work."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from wsi_lmc.commands.common import (
    ConfigFile,
    Crew,
    Mask,
    Pseudonyms,
    Quiet,
    SlideTimeout,
    Workers,
    resolve,
    with_settings,
)  # fmt: skip
from wsi_lmc.commands.text import printable
from wsi_lmc.costs import EMBEDDED_PER_S, Machine, measure, store_bytes
from wsi_lmc.errors import UsageError
from wsi_lmc.preflight import Needs, audit_cohort, audits_as_csv, mpp_as_said, needs
from wsi_lmc.progress import ProgressReport
from wsi_lmc.pseudonyms import find_named_slides
from wsi_lmc.publish import nearest_folder, publish_file
from wsi_lmc.run import RunOptions
from wsi_lmc.runfolder import DEFAULT
from wsi_lmc.status import in_words
from wsi_lmc.steps.audit import Audit
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.threads import available_cores

_WIDTH = 200  # columns where there is no terminal: a file or a log has no edge


@with_settings({"tile": TileConfig})
def command(
    slides: Annotated[list[str], typer.Argument(help="Slides, folders, patterns in quotes, or a manifest.csv.")],
    given: dict[str, dict[str, object]],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where tile would write: its free space is looked at, no more.")
    ] = DEFAULT,
    config: ConfigFile = None,
    mask: Mask = None,
    pseudonyms: Pseudonyms = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write all that was found out to this file.")] = None,
    overviews: Annotated[
        bool, typer.Option("--overviews/--no-overviews", help="Count tiles by tissue, or skip that: faster.")
    ] = True,
    slide_timeout: SlideTimeout = 600.0,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Look at every slide before any work: would it open, and if not why; pixel size by source; tiles, disk, hours.

    Takes tile's settings and gives the codes that tile would record. Writes nothing but the file of --csv. Exit code 1
    if any slide would fail or the disk is too small.
    """
    settings = resolve("tile", TileConfig, config, given)
    if csv is not None and not csv.parent.is_dir():
        raise UsageError(f"no folder {csv.parent}", "an existing one for --csv", "Create it.")
    entries = find_named_slides(slides, pseudonyms, output)
    with (
        Crew(workers, timeout_s=slide_timeout).executor(len(entries)) as executor,
        ProgressReport("plan", len(entries), quiet) as progress,
    ):
        options = RunOptions(executor, mask, on_outcome=progress.add)
        audits = audit_cohort(entries, settings, options, overviews)
    machine = measure(available_cores())
    if csv is not None:
        publish_file(csv, audits_as_csv(entries, audits, machine))
    _show(audits)
    sums = needs(audits, machine)
    free = shutil.disk_usage(nearest_folder(output)).free
    _sum_up(sums, machine, free, counted=overviews)
    if sums.states.get("failed") or sums.store_bytes > free:
        raise typer.Exit(1)


def _show(audits: Sequence[Audit]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("slide", "state", "format", "pixels", "levels", "um/px", "tiles", "store"):
        right = name in ("tiles", "levels", "store")
        table.add_column(name, justify="right" if right else "left", overflow="fold" if name == "slide" else "ellipsis")
    for audit in audits:
        table.add_row(*(printable(cell) for cell in _cells(audit)))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, markup=False, emoji=False)
    console.print(table)
    for audit in audits:
        for line in _lines(audit):
            console.print(printable(f"{audit.slide_id}: {line}"), soft_wrap=True)


def _cells(audit: Audit) -> list[str]:
    feasible = audit.state != "failed"
    stored = store_bytes(audit.cutting, audit.tiles) if feasible and audit.cutting else None
    return [
        audit.slide_id,
        "ok" if audit.state == "done" else audit.state if feasible else audit.code,
        " ".join(filter(None, (audit.vendor, audit.reader and f"({audit.reader})"))),
        f"{audit.width} x {audit.height}" if audit.width else "",
        str(len(audit.downsamples) or ""),
        f"{audit.mpp:.4g} ({audit.mpp_source})" if audit.mpp is not None else "",
        f"{'' if audit.counted else 'up to '}{audit.tiles}" if feasible else "",
        in_bytes(stored) if stored is not None else "",
    ]


def _lines(audit: Audit) -> list[str]:
    """What does not fit into a row: why a slide would fail, and what is odd about it."""
    lines: list[str] = []
    if audit.state == "failed":
        lines.append(f"{audit.code}: {audit.reason}. {audit.remedy}")
    if not audit.mpp_agrees:
        said = ", ".join(f"{source} says {value}" for source, value in mpp_as_said(audit).items())
        lines.append(f"pixel sizes disagree or cannot be used: {said}")
    return [*lines, *audit.notes]


def _sum_up(sums: Needs, machine: Machine, free: int, counted: bool) -> None:
    of_state = ", ".join(
        f"{sums.states[state]} {'ok' if state == 'done' else state}"
        for state in ("done", "empty", "failed")
        if state in sums.states
    )
    most = "" if counted else "at most "
    typer.echo(f"{of_state}; {most}{sums.tiles} tiles")
    enough = "" if sums.store_bytes <= free else ": NOT ENOUGH"
    typer.echo(f"disk: {most}{in_bytes(sums.store_bytes)}, of {in_bytes(free)} free{enough}")
    typer.echo(
        f"tile: {most}{in_words(sums.core_seconds / machine.cores)} on {machine.cores} idle cores "
        f"({machine.said}, timed now; ratios of docs/speed.md)"
    )
    typer.echo(
        f"embed: {most}{in_words(sums.tiles / EMBEDDED_PER_S)} on 2 cores "
        f"({EMBEDDED_PER_S:.0f} tiles a second, as measured in docs/speed.md; GPUs: docs/scale.md)"
    )


def in_bytes(count: int) -> str:
    """A number of bytes, as a person says it."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
