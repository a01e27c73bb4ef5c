"""A run folder, looked at as a whole: is everything there, whole, and of the slides and settings it claims to be of?

Only reads. What somebody is at work on is left out; what cannot be compared from here is said, not guessed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wsi_lmc.errors import UsageError
from wsi_lmc.runfolder import RECORDS, STAGES
from wsi_lmc.steps.outcome import Stage
from wsi_lmc.threads import available_cores
from wsi_lmc.verify.finding import Finding, RunView
from wsi_lmc.verify.folder import (
    checkpoints,
    look_at_caches,
    look_at_checkpoint,
    look_at_folder,
    look_for_leftovers,
    notes,
)
from wsi_lmc.verify.stores import STORES, look_at_encoders, look_at_slide

__all__ = ["STORES", "Finding", "Verification", "to_look_at", "verify"]


@dataclass(frozen=True)
class Verification:
    """What was found in a run folder, and notes on what could not be looked at; ``stores`` is how many were."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    stores: int


def verify(out: Path, on_slide: Callable[[int], None] | None = None) -> Verification:
    """Look at everything in a run folder; ``on_slide`` hears how many stores have been looked at.

    Raises:
        UsageError: there is no run in the folder.
    """
    if not (out / RECORDS).is_dir():
        raise UsageError(f"no run in {out}", "a run folder, with records/", "Name the folder that tile or embed got.")
    run = RunView(out)
    run.load()
    stores = to_look_at(out)
    findings = list(look_at_folder(run))
    with ThreadPoolExecutor(available_cores(), "verify") as threads:
        for number, found in enumerate(threads.map(partial(look_at_slide, run), stores)):
            findings += found
            if on_slide is not None:
                on_slide(number + 1)
    findings += look_at_encoders(run)
    findings += [finding for folder in checkpoints(out) for finding in look_at_checkpoint(out, folder)]
    findings += look_at_caches(out)
    findings += look_for_leftovers(run)
    return Verification(tuple(findings), tuple(notes(run)), len(stores))


def to_look_at(out: Path) -> list[tuple[Stage, str]]:
    """Every stage of every slide that has a record or a store."""
    found: list[tuple[Stage, str]] = []
    for stage in STAGES:
        folder = STORES[stage]
        ids = {path.stem for path in (out / RECORDS / stage).glob("*.json")}
        ids |= {path.name.removesuffix(".zarr") for path in (out / folder).glob("*.zarr")}
        for slide_id in sorted(ids):
            found.append((stage, slide_id))
    return found
