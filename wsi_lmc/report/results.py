"""Scores of classifiers and of studies, from the documents that ``classify`` and the pipelines wrote."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wsi_lmc.report.blocks import Block, Cell, Facts, Gallery, Heading, Paragraph, Picture, Section, table
from wsi_lmc.report.drawing import rows_figure
from wsi_lmc.report.figures import svg
from wsi_lmc.report.finding import CLASSIFICATION, RESULTS, SCORES, STUDY, Place, read_document
from wsi_lmc.report.privacy import told_setting

_SHAPE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What a document raises that is not of the shape it ought to have."""
_MOST = 500


def classification_section(place: Place, number: int, several: bool) -> Section:
    """Scores of one classification by site, each beside a trivial answer's; of a damaged one, that alone."""
    title = f"Classification{f': {place.name}' if several and place.name else ''}"
    anchor = f"classification{number or ''}"
    document = read_document(place.path / SCORES, CLASSIFICATION)
    try:
        blocks = tuple(_classification(document)) if document else ()
    except _SHAPE:
        blocks = ()
    damaged = Paragraph("These scores cannot be read. Run 'wsi-lmc classify' again.")
    return Section(anchor, title, blocks or (damaged,))


def _classification(document: Mapping[str, Any]) -> Iterator[Block]:
    card = document
    named = {"level": "Level", "head": "Head", "source": "Learnt at", "classes": "Classes"}
    about = [(title, _listed(card[key])) for key, title in named.items() if key in card]
    if about:
        yield Facts(tuple(about))
    yield Paragraph(
        "Everything (regularisation, epochs, threshold) was chosen on the source. The source's own scores are out of "
        "fold: by models that had not seen the patient. Hold every score against the trivial answer beside it."
    )
    for site in document["sites"]:
        split = {"source": "source, out of fold", "target": "target"}.get(str(site["split"]), str(site["split"]))
        name = site["site"] or "no site named"
        rows = [
            (
                score["metric"],
                _interval(score["value"], score["low"], score["high"]),
                Cell(_decimal(score["baseline"]), (str(score["baseline_is"]),), score["baseline"], number=True),
                _spread(score["seed_mean"], score["seed_sd"]),
            )
            for score in site["scores"]
        ]
        yield table(
            f"{name} ({split}): {site['examples']:,} {site['unit']}s, {site['patients']:,} patients",
            ("metric", "value [95 % interval]", "trivial answer", "seeds: mean and spread"),
            rows,
        )


def study_section(place: Place, number: int, several: bool) -> Section:
    """A study's rows with intervals, and what the reference has over each; of a damaged one, that alone."""
    title = f"Study{f': {place.name}' if several and place.name else ''}"
    anchor = f"study{number or ''}"
    document = read_document(place.path / RESULTS, STUDY)
    try:
        blocks = tuple(_study(document, f"s{number}")) if document else ()
    except _SHAPE:
        blocks = ()
    damaged = Paragraph("These results cannot be read. Run the study again.")
    return Section(anchor, title, blocks or (damaged,))


def _study(document: Mapping[str, Any], prefix: str, metric: str = "AUROC") -> Iterator[Block]:
    rows = sorted(document["rows"], key=lambda row: -row["mean"][metric]["value"])
    reference, targets = str(document["reference"]), list(rows[0]["at"])
    yield Paragraph(
        f"Encoders of one architecture, taught in several ways on one site and compared at others. "
        f"Intervals: {document['interval']}. A row's own interval says how sure its score is; the difference to "
        f"{reference} has an interval of its own, which alone says whether one is ahead."
    )
    names = [str(row["row"]) for row in rows]
    cells = [row["mean"][metric] for row in rows]
    alt = f"{metric} of each row: " + "; ".join(
        f"{name} {_interval(each['value'], each['low'], each['high']).text}"
        for name, each in zip(names, cells, strict=True)
    )
    values = [(each["value"], each["low"], each["high"]) for each in cells]
    image = svg(lambda: rows_figure(names, values, f"{metric}, mean of the targets"), prefix, alt)
    yield Gallery((Picture(image, alt, f"{metric}, mean of the targets: point and line, value and interval"),))
    columns = ("row", *targets, *(["mean"] if len(targets) > 1 else []), f"{reference} has over it", "in words",
               "at the source", "site told", "effective rank", "seeds")  # fmt: skip
    yield table(f"{metric} by row and target", columns, (_row(row, targets, reference, metric) for row in rows))
    others = [name for name in rows[0]["mean"] if name != metric]
    yield table(
        "Other metrics, mean of the targets",
        ("row", *others),
        [(row["row"], *(_cell(row["mean"][name]) for name in others)) for row in rows],
    )
    yield from _stated(document.get("stated", {}))


def _row(row: Mapping[str, Any], targets: Sequence[str], reference: str, metric: str) -> tuple[object, ...]:
    gain = row["gain"].get(metric)
    over = Cell("") if gain is None else _interval(gain["value"], gain["low"], gain["high"], signed=True)
    mean = [_cell(row["mean"][metric])] if len(targets) > 1 else []
    known = (None if row[name] is None else round(float(row[name]), 3) for name in ("within", "site", "rank"))
    return (
        *(row["row"], *(_cell(row["at"][target][metric]) for target in targets), *mean, over),
        *(_verdict(reference, gain), *known, int(row["seeds"])),
    )


def _verdict(reference: str, gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return ""
    if gain["low"] is None or gain["high"] is None:
        return "not known"
    if gain["low"] > 0:
        return f"{reference} is ahead"
    return f"{reference} is behind" if gain["high"] < 0 else "not told apart"


def _stated(stated: Mapping[str, Any]) -> Iterator[Block]:
    sites = stated.get("sites")
    if isinstance(sites, dict) and sites:
        classes = [str(each) for each in stated.get("classes", [])]
        yield Heading("On what")
        rows = [
            (name, site["tiles"], site["patients"], *(site["by class"].get(each) for each in classes))
            for name, site in sites.items()
        ]
        yield table("Tiles and patients", ("site", "tiles", "patients", *classes), rows)
    settings = stated.get("settings")
    if isinstance(settings, dict):
        yield Facts(tuple((str(name), told_setting(value)) for name, value in settings.items()))


def _cell(cell: Mapping[str, Any]) -> Cell:
    found = _interval(cell["value"], cell["low"], cell["high"])
    spread = f"seeds ± {cell['seed_sd']:.3f}"
    return Cell(found.text, (spread,) if cell["seed_sd"] else (), found.key, number=True)


def _interval(value: float | None, low: float | None, high: float | None, signed: bool = False) -> Cell:
    if value is None:
        return Cell("-")
    sign = "+" if signed else ""
    bounds = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return Cell(f"{value:{sign}.3f}{bounds}", key=float(value), number=True)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(mean: float | None, deviation: float | None) -> str:
    return "" if mean is None or deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
