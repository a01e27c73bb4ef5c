"""Which slides there were and how they came out: by site, one by one, what failed and why, and what was cut."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from markupsafe import Markup

from wsi_lmc.codes import MEANINGS
from wsi_lmc.report.blocks import Block, Cell, Facts, Gallery, Paragraph, Picture, Section, counted, table
from wsi_lmc.report.figures import data_uri
from wsi_lmc.report.runs import Run
from wsi_lmc.steps.outcome import Outcome

_STATES = ("done", "empty", "failed")
_THUMBNAIL_PX, _QUALITY = 360, 72
_LABELS_SHOWN = 6


def cohort_section(run: Run, most: int) -> Section:
    """The slides by site, and a table of them one by one."""
    blocks: list[Block] = [Facts(tuple(_totals(run)))]
    blocks.append(
        table(
            "Slides by site",
            ("site", "slides", "patients", "labels", "done", "empty", "failed", "not yet", "tiles", "µm a pixel",
             "stated by"),
            _by_site(run),
            note="Labels are those of slides, from the manifest. Microns a pixel are the slides' own, at level 0.",
        )
    )  # fmt: skip
    order = {"failed": 0, "": 1, "empty": 2, "done": 3, "skipped": 4}
    slides = sorted(run.planned, key=lambda slide: (order.get(_state(run, slide), 1), slide))
    columns = ("slide", "site", "label", "state", "tiles", "µm a pixel", "stated by")
    rows = (_slide(run, slide_id) for slide_id in slides[:most])
    blocks.append(table("Slide by slide, failures first", columns, rows, of=len(slides)))
    return Section("slides", "Slides", tuple(blocks))


def _totals(run: Run) -> Iterator[tuple[str, str]]:
    states = Counter(_state(run, slide) for slide in run.planned)
    patients = {entry.patient for slide, entry in run.entries.items() if entry.patient}
    yield "Slides", f"{len(run.planned):,}"
    yield "Came out", ", ".join(f"{states[state]:,} {state}" for state in _STATES if states[state]) or "none yet"
    if states[""]:
        yield "Not come out yet", f"{states['']:,}"
    if patients:
        yield "Patients", f"{len(patients):,}"
    tiles = sum(outcome.tiles for outcome in (run.tiled or run.embedded).values())
    yield "Tiles", f"{tiles:,}"
    if any(entry.hidden for entry in run.entries.values()):
        yield "Names", "pseudonyms; the map to the slides' own names is not in this run"


def _by_site(run: Run) -> Iterator[tuple[object, ...]]:
    slides: dict[str, list[str]] = defaultdict(list)
    for slide_id in run.planned:
        slides[run.site(slide_id)].append(slide_id)
    for site, own in sorted(slides.items()):
        entries = [run.entries[slide_id] for slide_id in own if slide_id in run.entries]
        states = Counter(_state(run, slide_id) for slide_id in own)
        known = [found for slide_id in own if (found := run.outcome(slide_id)) is not None]
        labels = Counter(entry.label for entry in entries if entry.label)
        yield (
            *(site, len(own), len({entry.patient for entry in entries if entry.patient}) or "not named"),
            _listed(labels) if labels else "none",
            *(states[state] for state in (*_STATES, "")),
            *(sum(outcome.tiles for outcome in known), _mpp(known), _listed(Counter(_sources(known)))),
        )


def _sources(known: Sequence[Outcome]) -> Iterator[str]:
    return (outcome.mpp_source for outcome in known if outcome.mpp_source)


def _mpp(known: Sequence[Outcome]) -> Cell:
    values = sorted(outcome.mpp for outcome in known if outcome.mpp is not None)
    if not values:
        return Cell("")
    low, high = f"{values[0]:.4g}", f"{values[-1]:.4g}"
    return Cell(low if low == high else f"{low} to {high}", key=values[0], number=True)


def _listed(counts: Counter[str]) -> str:
    """The most frequent ones with their counts."""
    shown = [f"{name} ({count:,})" for name, count in counts.most_common(_LABELS_SHOWN)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def _slide(run: Run, slide_id: str) -> tuple[object, ...]:
    outcome, entry = run.outcome(slide_id), run.entries.get(slide_id)
    label = entry.label if entry else ""
    if outcome is None:
        return (slide_id, run.site(slide_id), label, "not yet", None, None, "")
    state = outcome.state + (f": {outcome.code}" if outcome.code else "")
    known = (round(outcome.mpp, 5) if outcome.mpp is not None else None, outcome.mpp_source)
    return (slide_id, run.site(slide_id), label, state, outcome.tiles, *known)


def _state(run: Run, slide_id: str) -> str:
    outcome = run.outcome(slide_id)
    return outcome.state if outcome else ""


def failures_section(runs: Sequence[Run], most: int) -> Section | None:
    """What failed: each code with what it means and what to do, then the slides; None where nothing failed."""
    failed = [
        (run, outcome)
        for run in runs
        for stage in (run.tiled, run.embedded)
        for outcome in stage.values()
        if outcome.state == "failed"
    ]
    if not failed:
        return None
    counts = Counter(outcome.code for _, outcome in failed)
    codes = table(
        "Codes of failures",
        ("code", "slides", "what was found", "what to do"),
        ((code, count, *_meaning(code)) for code, count in counts.most_common()),
    )
    rows = (
        (
            *(outcome.slide_id, run.site(outcome.slide_id), outcome.stage, outcome.code),
            *(run.discreet(text, outcome.slide_id) for text in (outcome.reason, outcome.remedy)),
        )
        for run, outcome in sorted(failed, key=lambda each: (each[1].code, each[1].slide_id))[:most]
    )
    columns = ("slide", "site", "stage", "code", "reason", "what to do")
    slides = table("Slides that failed", columns, rows, of=len(failed))
    text = "The other slides were not held up by these. 'wsi-lmc retry-failed' runs them again, as they were asked for."
    return Section("failures", "Failures", (Paragraph(text), codes, slides))


def _meaning(code: str) -> tuple[str, str]:
    meaning = next((meaning for known, meaning in MEANINGS.items() if known == code), None)
    if meaning is None:
        return ("a code that this version does not know", "")
    return (meaning.found.replace("`", "'"), meaning.remedy.replace("`", "'"))


def overviews_section(run: Run, most: int) -> Section | None:
    """Small pictures of what was cut, of all sites in turn; None where there are none."""
    there = [slide_id for slide_id in run.planned if _overview(run, slide_id).is_file()]
    pictures = [picture for slide_id in _in_turn(run, there)[:most] if (picture := _thumbnail(run, slide_id))]
    if not pictures:
        return None
    shown = "all of them" if len(pictures) == len(there) else f"the first {len(pictures):,} of {len(there):,}, by sites"
    text = (
        f"Tissue that was found (green line) and tiles that were kept (blue squares): {shown}. "
        "Glass, pen and holes should lie outside of the line."
    )
    return Section("overviews", "Overviews", (Paragraph(text), Gallery(tuple(pictures), small=True)))


def _overview(run: Run, slide_id: str) -> Path:
    return run.place.path / "overviews" / f"{slide_id}.jpg"


def _in_turn(run: Run, slides: Sequence[str]) -> list[str]:
    """The first slide of every site, then the second of every site, and so on."""
    before: Counter[str] = Counter()
    keyed: list[tuple[int, str, str]] = []
    for slide_id in slides:
        site = run.site(slide_id)
        keyed.append((before[site], site, slide_id))
        before[site] += 1
    return [slide_id for _, _, slide_id in sorted(keyed)]


def _thumbnail(run: Run, slide_id: str) -> Picture | None:
    pixels = cv2.imread(str(_overview(run, slide_id)), cv2.IMREAD_REDUCED_COLOR_2)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL_PX / max(height, width))
    small = cv2.resize(
        pixels, (max(1, round(width * scale)), max(1, round(height * scale))), None, 0, 0, cv2.INTER_AREA
    )
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    outcome = run.tiled.get(slide_id)
    tiles = counted(outcome.tiles, "tile") if outcome else "tiles not known"
    source = data_uri(encoded, "image/jpeg")
    size = f'width="{small.shape[1]}" height="{small.shape[0]}"'
    alt = f"Overview of slide {slide_id} with the outline of its tissue: {tiles}"
    image = Markup('<img src="{}" alt="{}" {}>').format(source, alt, Markup(size))  # noqa: S704
    return Picture(image, alt, f"{slide_id}, {run.site(slide_id)}: {tiles}")
