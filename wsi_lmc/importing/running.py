"""Features of a whole cohort into a run folder, recorded as ``embed`` records its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import write_resolved
from wsi_lmc.discretion import told_discreetly
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.importing.config import ImportConfig
from wsi_lmc.importing.finding import Candidate
from wsi_lmc.importing.foreign import Layout
from wsi_lmc.importing.storing import ImportTask, import_slide
from wsi_lmc.run import RunOptions, collect
from wsi_lmc.runfolder import Request, add_slides, confine_results, list_slides, plan, prepare_run
from wsi_lmc.steps.outcome import Outcome


def import_cohort(
    candidates: Sequence[Candidate], layout: Layout, out: Path, config: ImportConfig, options: RunOptions
) -> list[Outcome]:
    """Import slides into the run folder ``out``; one outcome a slide, in their order.

    What the run's manifest knew of a slide stays, unless the user's own has a row of it.

    Raises:
        UsageError: the folder does not fit; nothing was started.
    """
    prepare_run(out)
    before = {entry.slide_id: entry for entry in list_slides(out)}
    entries = [_entry(candidate, before) for candidate in candidates]
    tasks = [
        ImportTask(entry, candidate.files, out, layout, candidate.encoder, config, options.overwrite)
        for entry, candidate in zip(entries, candidates, strict=True)
    ]
    confine_results(out, "embed", {task.slide_id: [task.result] for task in tasks})
    add_slides(out, entries)
    write_resolved(out, {"import": config})
    ids = [task.slide_id for task in tasks]
    plan(out, "embed", Request(tuple(ids), imported=layout))
    found = options.executor.run(import_slide, tasks)
    for beside in (
        {task.slide_id: task.files.features for task in tasks},
        {task.slide_id: task.files.coordinates for task in tasks if task.files.coordinates is not None},
    ):
        found = told_discreetly(found, entries, beside)
    return collect(found, out, ids, options.on_outcome)


def target_mpps(out: Path, outcomes: Sequence[Outcome]) -> tuple[float, float] | None:
    """The smallest and the largest microns per target pixel of slides that are done; None where none are.

    Others' patches have one nominal magnification, which may be several pixel sizes.
    """
    done = [outcome for outcome in outcomes if outcome.state == "done"]
    stores = (FeatureStore.open(out / "features" / f"{outcome.slide_id}.zarr") for outcome in done)
    found = [float(store.attributes["tile"]["mpp"]) for store in stores]
    return (min(found), max(found)) if found else None


def _entry(candidate: Candidate, before: dict[str, SlideEntry]) -> SlideEntry:
    """What is known of a slide; where it has been tiled here, its row keeps naming the slide itself."""
    earlier = before.get(candidate.entry.slide_id)
    if earlier is None or candidate.entry.duplicate_of is not None or earlier.hidden != candidate.entry.hidden:
        return candidate.entry
    kept = earlier if not candidate.known else replace(candidate.entry, path=earlier.path)
    return replace(kept, duplicate_of=None)
