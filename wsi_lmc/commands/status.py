"""``wsi-lmc status``: how far a run is, asked from any shell while others write."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from wsi_lmc.commands.text import printable
from wsi_lmc.runfolder import DEFAULT
from wsi_lmc.status import RunReader, StageStatus, in_words

RENEW_S = 5.0
_FAILURES_SHOWN = 10


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")] = DEFAULT,
    failures: Annotated[
        bool, typer.Option("--failures", help=f"All failures, not the first {_FAILURES_SHOWN}.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with all failures.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Renew every 5 seconds until Ctrl-C.")] = False,
) -> None:
    """Say how far a run is: slides done, empty, failed and left, the pace, the time left, and what failed why.

    Reads the records alone: takes no lock, writes nothing, and may be asked at any time. Exit code 1 if any slide
    failed, 2 if there is no such run.
    """
    reader = RunReader(run)
    stages: list[StageStatus] = []
    try:
        while True:
            now = time.time()
            stages = reader.read(now)
            text = json.dumps(_as_json(run, stages, now)) if as_json else _as_text(run, stages, now, failures)
            if watch and not as_json:
                Console().clear()  # on a terminal only
            typer.echo(text)
            if not watch:
                break
            time.sleep(RENEW_S)
    except KeyboardInterrupt:
        pass  # how a watch ends
    if any(status.failures for status in stages):
        raise typer.Exit(1)


def _as_text(run: Path, stages: list[StageStatus], now: float, all_failures: bool) -> str:
    lines: list[str] = []
    for status in stages:
        lines.append(status.standing.line())
        if status.last_at is not None and status.standing.left:
            lines.append(f"  last slide {in_words(max(0.0, now - status.last_at))} ago")
        for holder in status.working:
            gone = "" if holder.alive is not False else ", but that process is gone"
            lines.append(
                f"  in work: {holder.name} on {holder.host} for {in_words(max(0.0, now - holder.since))}{gone}"
            )
        shown = status.failures if all_failures else status.failures[:_FAILURES_SHOWN]
        lines += [f"  failed: {outcome.slide_id}: {outcome.code}: {outcome.reason}" for outcome in shown]
        if len(shown) < len(status.failures):
            lines.append(f"  and {len(status.failures) - len(shown)} more: wsi-lmc status {run} --failures")
    return "\n".join(printable(line) for line in lines) or f"{run}: no slide is planned yet"


def _as_json(run: Path, stages: list[StageStatus], now: float) -> dict[str, Any]:
    return {"run": str(run), "time": now, "stages": [_stage_as_json(status) for status in stages]}


def _stage_as_json(status: StageStatus) -> dict[str, Any]:
    standing = status.standing
    kept = ("slide_id", "code", "reason", "remedy")
    return {
        "stage": status.stage,
        "planned": standing.total,
        **{state: standing.states.get(state, 0) for state in ("done", "empty", "failed", "skipped")},
        "left": standing.left,
        "tiles": standing.tiles,
        "slides_per_minute": standing.pace.per_minute,
        "tiles_per_minute": standing.pace.tiles_per_minute,
        "measured_over_s": standing.pace.over_s,
        "eta_s": standing.eta_s,
        "last_slide_at": status.last_at,
        "working": [asdict(holder) for holder in status.working],
        "failures": [{key: getattr(outcome, key) for key in kept} for outcome in status.failures],
    }
