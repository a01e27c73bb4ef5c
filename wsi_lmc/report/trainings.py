"""How encoders were trained, and which encoders made which features: who has seen what."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wsi_lmc.checkpoint import read_metrics
from wsi_lmc.errors import StoreError
from wsi_lmc.featurestore import FeatureStore
from wsi_lmc.report.blocks import Block, Facts, Gallery, Heading, Paragraph, Picture, Section, counted, table
from wsi_lmc.report.drawing import course_figure
from wsi_lmc.report.figures import svg
from wsi_lmc.report.finding import Place
from wsi_lmc.report.runs import NO_SITE, Run
from wsi_lmc.trainedslides import PROVENANCE, tiles_trained_on

_SHORT = 12  # digits of a SHA-256 that are shown
_MOST_SEEN = 500
_LOOKED_AT = 200  # feature stores whose encoder is read
_TERMS = ("invariance", "redundancy")
_LAST = {
    "invariance": "invariance term, batches",
    "redundancy": "redundancy term, batches",
    "held_out_invariance": "invariance term, held-out tiles",
    "held_out_redundancy": "redundancy term, held-out tiles",
    "held_out_effective_rank": "effective rank, held-out tiles",
    "held_out_std": "spread of features, held-out tiles",
}


@dataclass(frozen=True)
class Training:
    """A training: its log's rows, and what it says of itself (empty until it has ended)."""

    place: Place
    rows: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Of the encoder's weights; empty until it has ended."""
        return str(self.provenance.get("encoder_sha256", ""))

    @property
    def seen(self) -> dict[str, int]:
        """Tiles that it was trained on, by slide."""
        return tiles_trained_on(self.provenance)


def read_training(place: Place) -> Training:
    """A training as its folder has it; what is damaged counts as not there."""
    rows = [row for row in read_metrics(place.path) if isinstance(row, dict) and isinstance(row.get("step"), int)]
    try:
        provenance = json.loads((place.path / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        provenance = {}
    return Training(place, rows, provenance if isinstance(provenance, dict) else {})


def trainings_section(trainings: Sequence[Training], runs: Sequence[Run]) -> Section | None:
    """Each training with its curves; None where there is none."""
    blocks: list[Block] = []
    for number, training in enumerate(trainings):
        if len(trainings) > 1:
            blocks.append(Heading(training.place.name or "checkpoint"))
        blocks += [Facts(tuple(_about(training, runs))), *_curves(training, f"t{number}")]
    text = (
        "Curves of the two terms should fall, on held-out tiles as well. The effective rank says how many directions "
        "the features use: towards 1 they have collapsed, and the encoder is of no use however low its loss."
    )
    return Section("training", "Training", (Paragraph(text), *blocks)) if trainings else None


def _about(training: Training, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    said, config = training.provenance, training.provenance.get("config", {})
    if not said:
        yield "State", "not ended: no encoder has been published"
    else:
        sites = sorted(sites_of(training.seen, runs))
        slides = f"{counted(len(training.seen), 'slide')}, {counted(sum(training.seen.values()), 'tile')}"
        yield "Network", str(config.get("architecture", "not known"))
        yield "Views of a tile", _views(said)
        yield "Trained on", f"{slides}{f', of {_and(sites)}' if sites else ''}"
        yield (
            "Held out",
            f"whole {said.get('held_out')}"
            if said.get("held_out") == "slides"
            else str(said.get("held_out", "not known")),
        )
        yield "Tiles", f"{said.get('tile_px')} px at {_number(said.get('trained_mpp'))} µm"
        yield "Encoder", f"SHA-256 {training.sha256[:_SHORT]}…"
    if training.rows:
        yield "Steps", f"{training.rows[-1]['step']:,}"


def _curves(training: Training, prefix: str) -> Iterator[Block]:
    rows = training.rows
    if not rows:
        return
    drawn: list[Picture] = []
    courses = [
        *((f"{term} term", {term: "batches", f"held_out_{term}": "held out"}, True) for term in _TERMS),
        ("effective rank", {"effective_rank": "batches", "held_out_effective_rank": "held out"}, False),
    ]
    for number, (title, lines, log) in enumerate(courses):
        if not any(isinstance(row.get(key), int | float) for row in rows for key in lines):
            continue
        alt = f"{title} against steps. {_ends(rows, lines)}"
        draw = partial(course_figure, rows, lines, title, log)
        image = svg(draw, f"{prefix}{number}", alt)
        drawn.append(Picture(image, alt, title))
    yield Gallery(tuple(drawn))
    values = [(name, *_first_and_last(rows, key)) for key, name in _LAST.items() if any(key in row for row in rows)]
    yield table("First and last values", ("metric", "first", "last"), values)


def _first_and_last(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    there = [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]
    return (there[0], there[-1]) if there else (float("nan"), float("nan"))


def _ends(rows: Sequence[Mapping[str, Any]], lines: Mapping[str, str]) -> str:
    known = [(label, _first_and_last(rows, key)) for key, label in lines.items() if any(key in row for row in rows)]
    return "; ".join(f"{label}: from {first:.4g} to {last:.4g}" for label, (first, last) in known)


def encoders_section(runs: Sequence[Run], trainings: Sequence[Training]) -> Section | None:
    """Which encoder made the features of which folder, and which slides it has seen; None where there are none."""
    by_sha = {training.sha256: training for training in trainings if training.sha256}
    rows: list[tuple[object, ...]] = []
    seen: list[tuple[object, ...]] = []
    looked_at = 0
    for run in runs:
        encoders, looked, there = _encoders(run)
        looked_at += looked < there
        for encoder, slides in encoders:
            sha = str(encoder.get("sha256") or "")
            training = by_sha.get(sha)
            known = training.seen if training else {}
            taught = _taught(encoder, training, runs)
            name = run.place.name or "this run"
            rows.append((name, _told(encoder.get("name")), f"{sha[:_SHORT]}…" if sha else "", slides, *taught))
            seen += [(name, slide_id, _site_in(runs, slide_id), count) for slide_id, count in sorted(known.items())]
    if not rows:
        return None
    note = f"Of folders with many slides, {_LOOKED_AT} were asked for their encoder." if looked_at else ""
    columns = ("features", "encoder", "SHA-256", "slides", "network and views", "trained on", "source site")
    blocks: list[Block] = [table("Encoders of the features", columns, rows, note=note)]
    if seen:
        columns = ("features", "slide", "site", "tiles seen")
        blocks.append(table("Slides that encoders have seen in training", columns, seen[:_MOST_SEEN], of=len(seen)))
    text = (
        "Equal sums are equal encoders. A score on slides that an encoder has seen says less than one on others: the "
        "demo, and evaluate with --seen, count them in the transfer of classes and in pairs alone."
    )
    return Section("encoders", "What was compared with what", (Paragraph(text), *blocks))


def _encoders(run: Run) -> tuple[list[tuple[Mapping[str, Any], int]], int, int]:
    """Encoders of a run's features with numbers of slides; how many were looked at, and how many there are."""
    paths = sorted((run.place.path / "features").glob("*.zarr"))
    chosen = paths[:: max(1, -(-len(paths) // _LOOKED_AT))]
    counts: Counter[str] = Counter()
    for path in chosen:
        try:
            counts[json.dumps(FeatureStore.open(path).attributes.get("encoder", {}), sort_keys=True)] += 1
        except StoreError:
            continue  # 'verify' tells of it
    whole = len(chosen) == len(paths)
    found = [(json.loads(text), count if whole or len(counts) > 1 else len(paths)) for text, count in counts.items()]
    return found, len(chosen), len(paths)


def _taught(encoder: Mapping[str, Any], training: Training | None, runs: Sequence[Run]) -> tuple[str, str, str]:
    mode = str(encoder.get("mode") or "")
    normalised = str(encoder.get("normalised", "none"))
    known = _views(training.provenance) if training else "not trained" if mode == "none" else f"{mode or 'not known'}"
    views = f"{_told(encoder.get('architecture'))}; {known}"
    views += f", tiles normalised by {normalised}" if normalised not in ("none", "unknown") else ""
    if training is None:
        return views, "nothing" if mode == "none" else "not known here", ""
    what = f"{counted(len(training.seen), 'slide')}, {counted(sum(training.seen.values()), 'tile')}"
    return views, what, ", ".join(sorted(sites_of(training.seen, runs)))


def _views(provenance: Mapping[str, Any]) -> str:
    """How the two views of a tile differ in training, in words."""
    views = provenance.get("augmentation")
    settings = views if isinstance(views, dict) else {}
    if settings.get("scale_low") == settings.get("scale_high") == 1.0:
        return "flips and rotations" + (" and colour jitter" if settings.get("hed") else "") + ", no change of stain"
    return f"stain strength changed ({provenance.get('mode', 'not known')} separation)"


def sites_of(slides: Mapping[str, int], runs: Sequence[Run]) -> set[str]:
    """Sites of some slides, as far as a run's manifest names them."""
    return {site for slide_id in slides if (site := _site_in(runs, slide_id)) != NO_SITE}


def _site_in(runs: Sequence[Run], slide_id: str) -> str:
    return next((run.site(slide_id) for run in runs if slide_id in run.entries), NO_SITE)


def _told(value: object) -> str:
    """The name of an encoder; of one in a folder, its last part."""
    text = "" if value is None else str(value)
    return text if text.startswith("hf-hub:") else text.replace("\\", "/").rsplit("/", 1)[-1]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"


def _and(names: Sequence[str]) -> str:
    return f"{'site' if len(names) == 1 else 'sites'} {', '.join(names)}"
