"""An evaluation: every metric with interval, floor and chance and how to read it, what one encoder has over another."""

from collections.abc import Iterator
from functools import partial

from wsi_lmc.errors import StoreError
from wsi_lmc.evaluation import METRICS, Evaluation, Gain, Measure, Metric, read_evaluation
from wsi_lmc.evaluation.reading import read_planes
from wsi_lmc.report.blocks import Block, Cell, Facts, Gallery, Heading, Paragraph, Picture, Section, counted, table
from wsi_lmc.report.drawing import curves_figure, measures_figure, plane_figure
from wsi_lmc.report.figures import svg
from wsi_lmc.report.finding import Place

_KINDS = {
    "batch": "How much of the site is in the features",
    "tissue": "Tissue against site",
    "transfer": "Classes learnt at one site, tested at another",
    "pairs": "The same tissue in two scans",
}
_MOST_TRANSFERS = 12
_READ = (
    "Numbers in brackets are 95 % intervals: patients (groups) were drawn anew, not tiles. Beside a value stands what "
    "it has to be held against: the floor is what the same measure gives where there is no batch effect, chance what "
    "guessing gives. A value on the wrong side of these says nothing good, however large it looks."
)


def evaluation_section(place: Place, number: int, several: bool) -> Section:
    """All of one evaluation; of one that cannot be read, that alone."""
    title = f"Evaluation{f': {place.name}' if several and place.name else ''}"
    anchor = f"evaluation{number or ''}"
    try:
        evaluation = read_evaluation(place.path)
    except StoreError:
        text = "This evaluation cannot be read: damaged, or of another version. Run 'wsi-lmc evaluate' again."
        return Section(anchor, title, (Paragraph(text),))
    blocks: list[Block] = [Facts(tuple(_about(evaluation))), *_gains(evaluation), Paragraph(_READ)]
    for kind, heading in _KINDS.items():
        blocks += _of_kind(evaluation, kind, heading, f"e{number}{kind}")
    blocks += _curves(evaluation, f"e{number}roc")
    blocks += _planes(place, evaluation.by, f"e{number}plane")
    blocks += _left_out(evaluation)
    return Section(anchor, title, tuple(blocks))


def _about(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    first = evaluation.encoders[0] if evaluation.encoders else None
    yield "Encoders", ", ".join(encoder.name for encoder in evaluation.encoders)
    yield f"{evaluation.by.capitalize()}s", ", ".join(evaluation.sites)
    if evaluation.classes:
        yield "Classes", ", ".join(evaluation.classes)
    if first is not None:
        yield "Measured on", f"{first.tiles:,} of {first.of:,} tiles, {first.slides:,} slides, {first.groups:,} groups"
    source, seen = evaluation.settings.get("source"), evaluation.settings.get("seen")
    if source:
        yield "Classes were learnt at", str(source)
    if isinstance(seen, int) and seen:
        yield "Seen in training", f"{counted(seen, 'slide')}; in the transfer of classes alone do they count"


def _gains(evaluation: Evaluation) -> Iterator[Block]:
    rows = []
    for encoder in evaluation.encoders:
        gain = evaluation.gain_over(encoder.name, "transfer_auroc")
        if gain is not None:
            rows.append((encoder.name, Cell(_signed(gain), key=gain.value, number=True), verdict(gain)))
    if rows:
        reference = evaluation.gains[0].encoder
        yield table(
            f"What {reference} has over the others: difference of AUROC at another {evaluation.by}",
            ("compared with", "difference [95 % interval]", "in words"),
            rows,
            note="Groups of the target are drawn for both encoders at once: this interval answers the question.",
        )


def verdict(gain: Gain) -> str:
    """A difference in words, as far as its interval allows."""
    if gain.low is None or gain.high is None:
        return "not known: too few groups"
    if gain.low > 0:
        return f"{gain.encoder} is ahead"
    if gain.high < 0:
        return f"{gain.encoder} is behind"
    return "not told apart: the interval holds 0"


def _signed(gain: Gain) -> str:
    bounds = "" if gain.low is None or gain.high is None else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"{gain.value:+.3f}{bounds}"


def _of_kind(evaluation: Evaluation, kind: str, heading: str, prefix: str) -> Iterator[Block]:
    encoders = evaluation.encoders
    names = [encoder.name for encoder in encoders]
    shown = {
        name: metric
        for name, metric in METRICS.items()
        if metric.kind == kind and any(encoder.find(name) for encoder in encoders)
    }
    rows = [row for name, metric in shown.items() for row in _rows(evaluation, name, metric)]
    if not rows:
        return
    yield Heading(heading)
    pictures = []
    for number, (name, metric) in enumerate(shown.items()):
        found = [encoder.find(name) for encoder in encoders]
        if name == "w2" or not any(found):  # w2 is not to be compared between encoders
            continue
        alt = f"{metric.title}: " + "; ".join(f"{each} {_line(one)}" for each, one in zip(names, found, strict=True))
        image = svg(partial(measures_figure, metric, names, found), f"{prefix}{number}", alt)
        pictures.append(Picture(image, alt, metric.title))
    yield Gallery(tuple(pictures))
    note = "In the pictures: point and line, value and interval; grey bar, floor; dashes, chance."
    yield table(heading, ("metric, and how to read it", *names), rows, note=note)


def _rows(evaluation: Evaluation, name: str, metric: Metric) -> Iterator[tuple[Cell, ...]]:
    encoders = evaluation.encoders
    places = list(dict.fromkeys(one.between for each in encoders for one in each.measures if one.metric == name))
    if () in places and len(places) == 2:
        places = [()]  # one pair of sites, which the whole repeats
    pairs = [place for place in places if place][: _MOST_TRANSFERS * 2]
    for place in ([()] if () in places else []) + pairs:
        found = [encoder.find(name, place) for encoder in encoders]
        if place:
            head = Cell(f"{metric.title}: {(' to ' if len(place) > 1 else '').join(place)}")
        else:
            head = Cell(metric.title, (f"{metric.better.capitalize()} is better. {metric.reading}",))
        yield (head, *map(_measured, found))


def _measured(measure: Measure | None) -> Cell:
    if measure is None:
        return Cell("not computed")
    small = []
    if measure.low is not None and measure.high is not None:
        small.append(f"[{measure.low:.3f}, {measure.high:.3f}]")
    if measure.floor is not None:
        small.append(f"floor {measure.floor:.3f}")
    if measure.chance is not None:
        small.append(f"chance {measure.chance:.3f}")
    return Cell(f"{measure.value:.3f}", tuple(small), measure.value, number=True)


def _line(measure: Measure | None) -> str:
    found = _measured(measure)
    return " ".join((found.text, *found.small))


def _curves(evaluation: Evaluation, prefix: str) -> Iterator[Block]:
    pairs = list(dict.fromkeys((one.source, one.target) for each in evaluation.encoders for one in each.curves))
    pictures = []
    for number, pair in enumerate(pairs[:_MOST_TRANSFERS]):
        curves = {
            encoder.name: curve
            for encoder in evaluation.encoders
            for curve in encoder.curves
            if (curve.source, curve.target) == pair
        }
        found = {encoder.name: encoder.find("transfer_auroc", pair) for encoder in evaluation.encoders}
        areas = {name: f"{one.value:.2f}" for name, one in found.items() if one is not None}
        alt = f"ROC curves from {pair[0]} to {pair[1]}; AUROC: {', '.join(f'{n} {a}' for n, a in areas.items())}"
        image = svg(partial(curves_figure, curves, areas), f"{prefix}{number}", alt)
        pictures.append(Picture(image, alt, f"{pair[0]} to {pair[1]}"))
    if pictures:
        yield Heading("ROC curves")
        rest = f" These are the first {len(pictures)} of {len(pairs)}." if len(pairs) > len(pictures) else ""
        yield Paragraph(f"Classes learnt at the first site, tested at the second; the grey line is guessing.{rest}")
        yield Gallery(tuple(pictures))


def _planes(place: Place, by: str, prefix: str) -> Iterator[Block]:
    planes = read_planes(place.path)
    if not planes:
        return
    way = planes[0].way
    yield Heading("Features in the plane")
    yield Paragraph(
        f"{way[:1].upper()}{way[1:]}; {len(planes[0].x):,} of {planes[0].of:,} tiles, equally many a site. Good "
        f"features are mixed where coloured by {by}, and apart where coloured by class. Metrics measure, a picture "
        "only shows."
    )
    labelled = any(label >= 0 for plane in planes for label in plane.label)
    for what in (by, "class") if labelled else (by,):
        pictures = []
        for number, plane in enumerate(planes):
            kind, names = (plane.label, plane.classes) if what == "class" else (plane.site, plane.sites)
            alt = f"{len(plane.x)} tiles in the plane ({plane.way}), features of {plane.name}, coloured by {what}"
            image = svg(partial(plane_figure, plane, kind, names), f"{prefix}{number}{what == 'class':d}", alt)
            pictures.append(Picture(image, alt, f"{plane.name}, by {what}"))
        yield Gallery(tuple(pictures))


def _left_out(evaluation: Evaluation) -> Iterator[Block]:
    reasons: dict[str, list[str]] = {}
    for encoder in evaluation.encoders:
        for missing in encoder.left_out:
            title = METRICS[missing.metric].title if missing.metric in METRICS else missing.metric
            names = reasons.setdefault(missing.reason, [])
            if title not in names:
                names.append(title)
    if reasons:
        yield table("What was not computed", ("metrics", "why"), ((", ".join(names), why) for why, names in
                                                                  reasons.items()))  # fmt: skip
