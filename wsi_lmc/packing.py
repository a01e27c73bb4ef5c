"""Images into a run folder: their lists, the manifest, and a tile store a group; like ``tile``, without slides."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_lmc.config import write_resolved
from wsi_lmc.discretion import told_discreetly
from wsi_lmc.errors import UsageError
from wsi_lmc.imagelists import (
    ImageEntry,
    ImageGroup,
    ImageInputs,
    find_images,
    group_images,
    groups_of,
    hash_images,
    remarks,
    without_repeats,
    write_list,
)
from wsi_lmc.patches import PackConfig
from wsi_lmc.run import RunOptions, collect
from wsi_lmc.runfolder import Request, add_slides, confine_results, list_slides, plan, prepare_run
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.pack import PackTask, pack_group
from wsi_lmc.threads import Threads, available_cores


def find_groups(inputs: ImageInputs, out: Path, config: PackConfig) -> tuple[list[ImageGroup], list[str]]:
    """Groups of images that are to be packed into ``out``, and notes on what nobody states of them.

    Every file is read once, for its SHA-256.

    Raises:
        UsageError: nothing to pack, statements that contradict each other, or a pixel size that nobody knows.
    """
    entries, notes = find_images(inputs)
    unknown = [entry for entry in entries if config.mpp_of(entry.mpp) is None]
    if unknown:
        raise UsageError(
            f"no pixel size of {len(unknown)} images, such as {unknown[0].path.name}",
            "microns per pixel",
            "Give --mpp, or a column mpp in --manifest; where nobody knows it, a stand-in: --nominal-mpp.",
        )
    with Threads(available_cores()) as threads:
        entries, repeats = without_repeats(hash_images(entries, threads))
    return group_images(entries, list_slides(out)), [*notes, *repeats, *remarks(entries)]


def pack_cohort(groups: Sequence[ImageGroup], out: Path, config: PackConfig, options: RunOptions) -> list[Outcome]:
    """Pack groups of images into the run folder ``out``; one outcome a group, in their order.

    Raises:
        UsageError: the folder does not fit; nothing was started.
    """
    prepare_run(out)
    tasks = [PackTask(group.slide_id, out, config, options.overwrite) for group in groups]
    confine_results(out, "tile", {task.slide_id: task.results for task in tasks})
    slides = [group.entry(out) for group in groups]
    add_slides(out, slides)
    write_resolved(out, {"pack": config})
    for group in groups:
        write_list(out, group)
    ids = [task.slide_id for task in tasks]
    plan(out, "tile", Request(tuple(ids), packed=True))
    found = told_discreetly(options.executor.run(pack_group, tasks), slides, {})
    return collect(found, out, ids, options.on_outcome)


def pack_again(slide_ids: Sequence[str], out: Path, config: PackConfig, options: RunOptions) -> list[Outcome]:
    """Pack groups of a run once more, from their images as they are now.

    Raises:
        UsageError: the run does not tell which images they have.
    """
    entries = {entry.slide_id: entry for entry in list_slides(out)}
    with Threads(available_cores()) as threads:
        groups = [_as_they_are(group, threads) for group in groups_of(out, entries, slide_ids)]
    return pack_cohort(groups, out, config, options)


def _as_they_are(group: ImageGroup, threads: Threads) -> ImageGroup:
    images: Sequence[ImageEntry] = hash_images(group.images, threads)
    return replace(group, images=tuple(images))
