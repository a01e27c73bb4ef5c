"""A cohort looked at before any work: an audit a slide, what it will all take, and the table of it.

Slides are opened in worker processes like those of `tile`: one that crashes or hangs its process fails alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.costs import Machine, core_seconds, store_bytes
from wsi_lmc.discretion import told_discreetly
from wsi_lmc.run import RunOptions, find_masks
from wsi_lmc.spreadsheets import to_csv
from wsi_lmc.steps.audit import Audit, AuditTask, audit_slide
from wsi_lmc.steps.outcome import Outcome, State
from wsi_lmc.steps.tile import TileConfig

SOURCES = ("OpenSlide", "tiffslide", "aperio.MPP", "tiff.XResolution", "manifest", "option --mpp")
_DECIDED = ("slide_id", "state", "code", "reason", "remedy")
_FOUND = ("vendor", "reader", "file_bytes", "width", "height")
_COUNTED = ("tiles", "counted", "places")


@dataclass(frozen=True)
class Needs:
    """What tiling a cohort needs; ``tiles`` only of slides that can be tiled."""

    states: dict[State, int]
    tiles: int
    store_bytes: int
    core_seconds: float


def audit_cohort(
    slides: Sequence[SlideEntry], config: TileConfig, options: RunOptions, overviews: bool = True
) -> list[Audit]:
    """An audit a slide, in the order of ``slides``, with its overview or without; nothing is written.

    Raises:
        UsageError: the mask does not fit.
    """
    masks = find_masks(slides, options.mask)
    tasks = [AuditTask(entry, config, masks.get(entry.slide_id), overviews) for entry in slides]
    audits: dict[str, Audit] = {}
    for outcome in told_discreetly(options.executor.run(audit_slide, tasks), slides, masks):
        audits[outcome.slide_id] = _as_audit(outcome)
        options.on_outcome(outcome)
    return [audits[entry.slide_id] for entry in slides]


def needs(audits: Sequence[Audit], machine: Machine) -> Needs:
    """Sum up."""
    feasible = [audit for audit in audits if audit.state != "failed"]
    return Needs(
        dict(Counter(audit.state for audit in audits)),
        sum(audit.tiles for audit in feasible),
        sum(_store_bytes(audit) or 0 for audit in feasible),
        sum(_core_seconds(audit, machine) or 0.0 for audit in feasible),
    )


def audits_as_csv(slides: Sequence[SlideEntry], audits: Sequence[Audit], machine: Machine) -> str:
    """All that was found out, a row a slide; the column ``slide`` makes it a manifest, too. Hidden slides have none."""
    of_mpp = ("mpp_found", "mpp_source", "mpp_agrees", *(f"says {source}" for source in SOURCES))
    columns = (
        "slide",
        *_DECIDED,
        *_FOUND,
        "levels",
        *of_mpp,
        *_COUNTED,
        "stored",
        "store_bytes",
        "core_seconds",
        "notes",
        "detail",
    )
    return to_csv(columns, [_row(entry, audit, machine) for entry, audit in zip(slides, audits, strict=True)])


def mpp_as_said(audit: Audit) -> dict[str, str]:
    """What each source says of the pixel size, as it stands there."""
    return {said.source: said.x if said.x == said.y else f"{said.x} x {said.y}" for said in audit.statements}


def _row(entry: SlideEntry, audit: Audit, machine: Machine) -> list[object]:
    said = mpp_as_said(audit)
    levels = " ".join(f"{downsample:.6g}" for downsample in audit.downsamples)
    calibration = [
        audit.mpp,
        audit.mpp_source,
        audit.mpp_agrees if said else None,
        *(said.get(source) for source in SOURCES),
    ]
    cutting = audit.cutting.stored if audit.cutting and audit.state != "failed" else None
    return [
        None if entry.hidden else entry.path.absolute().as_posix(),
        *(getattr(audit, name) for name in _DECIDED + _FOUND),
        levels,
        *calibration,
        *(getattr(audit, name) for name in _COUNTED),
        cutting,
        _store_bytes(audit),
        _core_seconds(audit, machine),
        None if entry.hidden else "; ".join(audit.notes),
        audit.detail,
    ]


def _store_bytes(audit: Audit) -> int | None:
    if audit.cutting is None or audit.state == "failed":
        return None
    return store_bytes(audit.cutting, audit.tiles)


def _core_seconds(audit: Audit, machine: Machine) -> float | None:
    if audit.cutting is None or audit.state == "failed":
        return None
    return core_seconds(audit.cutting, audit.tiles, audit.seconds, machine)


def _as_audit(outcome: Outcome) -> Audit:
    """An outcome that an executor made, of a slide that ended its process for instance, is an audit without facts."""
    return outcome if isinstance(outcome, Audit) else Audit(**asdict(outcome))
