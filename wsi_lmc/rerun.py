"""Slides of a run once more, by the settings and the outlines, encoders and stores they were asked for with."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import RUN_FILE, build, read_config
from wsi_lmc.confinement import confined
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists import are_at_hand, is_list, list_path
from wsi_lmc.packing import pack_again
from wsi_lmc.patches import PackConfig
from wsi_lmc.publish import discard, working
from wsi_lmc.run import EmbedInputs, RunOptions, embed_cohort, tile_cohort
from wsi_lmc.runfolder import STAGES, Request, list_slides, outcomes, requests, write_table
from wsi_lmc.steps.outcome import Outcome, Stage
from wsi_lmc.steps.tile import TileConfig
from wsi_lmc.verify import STORES, Finding

_NOT_BY_ITSELF = frozenset({"duplicate_name", "slide_changed", "other_configuration"})
"""Codes of failures that come again until the user changes the cohort or the command."""


def failed_slides(out: Path, stage: Stage) -> list[str]:
    """Slides of a stage that failed and may do better now."""
    return [
        outcome.slide_id
        for outcome in outcomes(out, stage)
        if outcome.state == "failed" and outcome.code not in _NOT_BY_ITSELF
    ]


def rerun(out: Path, stage: Stage, slide_ids: Sequence[str], options: RunOptions) -> list[Outcome]:
    """Run a stage again for some slides of a run folder.

    ``options.mask`` is not looked at: outlines are those that each slide was asked for with.

    Raises:
        UsageError: the folder does not tell what the slides were asked for with; nothing was started.
    """
    found: list[Outcome] = []
    settings = read_config(out / RUN_FILE) if (out / RUN_FILE).is_file() else {}
    for request in _again(out, stage, slide_ids):
        mask = Path(request.mask) if request.mask else None
        own = replace(options, mask=mask)
        if request.packed:
            found += pack_again(request.slides, out, build(PackConfig, settings.get("pack", {}), RUN_FILE), own)
        elif stage == "tile":
            config = build(TileConfig, settings.get("tile", {}), RUN_FILE)
            found += tile_cohort(_entries(out, request.slides), out, config, own)
        else:
            found += _embed(out, request, settings, own)
    return found


def repair(out: Path, findings: Iterable[Finding], options: RunOptions) -> list[Outcome]:
    """Mend what can be mended: remove what is left behind, and run the stages of damaged results again.

    A damaged result goes only where what it was made of is at hand; else it stays, and stays a finding.

    Raises:
        UsageError: the folder does not tell what a slide was asked for with; its damaged result is still there.
    """
    findings = list(findings)
    for finding in findings:
        if finding.remedy == "remove":
            _remove(confined(out, out / finding.path))
    done: list[Outcome] = []
    for stage in STAGES:
        slides = sorted({of[1] for each in findings if (of := each.slide) and of[0] == stage and each.remedy})
        anew = {of[1] for each in findings if (of := each.slide) and of[0] == stage and each.remedy == "anew"}
        at_hand = _at_hand(out, _again(out, stage, slides))  # before anything goes
        slides = [slide_id for slide_id in slides if slide_id in at_hand]
        for slide_id in sorted(anew & at_hand):
            _discard(out, stage, slide_id)
        if slides:
            done += rerun(out, stage, slides, options)
    write_table(out)
    return done


def _embed(out: Path, request: Request, settings: dict[str, dict[str, object]], options: RunOptions) -> list[Outcome]:
    stores = [out / path for slide_id, path in request.stores.items() if slide_id in request.slides]
    slides = _entries(out, [slide_id for slide_id in request.slides if slide_id not in request.stores])
    inputs = EmbedInputs(stores, slides, build(TileConfig, settings.get("tile", {}) if slides else {}, RUN_FILE))
    encoder = request.encoder or ""
    if (out / encoder).is_dir():
        encoder = str((out / encoder).resolve())
    return embed_cohort(inputs, encoder, out, build(EmbedConfig, settings.get("embed", {}), RUN_FILE), options)


def _again(out: Path, stage: Stage, slide_ids: Sequence[str]) -> list[Request]:
    """What to ask for: of every slide the latest request that named it, cut down to those slides."""
    left = set(slide_ids)
    found: list[Request] = []
    for request in requests(out, stage):
        own = tuple(slide_id for slide_id in request.slides if slide_id in left)
        if own and request.imported:
            raise UsageError(
                f"features of {', '.join(own[:5])} were imported from {request.imported}",
                "the files they came from",
                "Run the import command again as it was, for damaged stores with --overwrite: it does what is missing.",
            )
        if own and (stage == "tile" or request.encoder):
            stores = {slide_id: path for slide_id, path in request.stores.items() if slide_id in own}
            found.append(replace(request, slides=own, stores=stores))
            left -= set(own)
    if left:
        raise UsageError(
            f"{out} does not tell how {stage} was asked for {', '.join(sorted(left)[:5])}",
            "the requests of the run in records/planned",
            f"Run the {stage} command again as it was.",
        )
    return found


def _at_hand(out: Path, asked: Sequence[Request]) -> set[str]:
    """Slides whose files, or tile stores where they are made of these, are where they were."""
    known = {entry.slide_id: entry.path for entry in list_slides(out)}
    sources = {
        slide_id: out / request.stores[slide_id]
        if slide_id in request.stores
        else list_path(out, slide_id)
        if request.packed
        else known.get(slide_id)
        for request in asked
        for slide_id in request.slides
    }
    return {slide_id for slide_id, source in sources.items() if source is not None and _is_there(source)}


def _is_there(source: Path) -> bool:
    return are_at_hand(source) if is_list(source) else source.exists()


def _entries(out: Path, slide_ids: Sequence[str]) -> list[SlideEntry]:
    known = {entry.slide_id: entry for entry in list_slides(out)}
    missing = [slide_id for slide_id in slide_ids if slide_id not in known]
    if missing:
        raise UsageError(
            f"the manifest of {out} has no {', '.join(missing[:5])}",
            "a row for each slide of the run",
            "Run the tile command again as it was.",
        )
    if any(known[slide_id].hidden for slide_id in slide_ids):
        raise UsageError(
            f"{out} knows its slides by pseudonyms only",
            "the files themselves",
            "Run the command again as it was, with --pseudonyms: it does what is missing or failed.",
        )
    return [known[slide_id] for slide_id in slide_ids]


def _discard(out: Path, stage: Stage, slide_id: str) -> None:
    """Take a damaged store out of its place at once, then remove it."""
    store = out / STORES[stage] / f"{slide_id}.zarr"
    with working(out, f"{stage}-{slide_id}"):
        discard(out, store)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
