"""Outlines as ASAP writes them: the XML of the Camelyon16 and Camelyon17 lesions.

``Annotation`` elements hold ``Coordinate`` elements with ``Order``, ``X`` and ``Y`` in level-0 pixels; ``PartOfGroup``
says what an outline means. Camelyon16: ``Tumor``, ``_0`` and ``_1`` are lesions, ``_2`` and ``Exclusion`` are cut out
of them; Camelyon17: ``metastases``, and ``normal`` within them.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from wsi_lmc.annotations.files import not_of, read_limited
from wsi_lmc.annotations.regions import Annotation, Region, to_region
from wsi_lmc.errors import UsageError

_EXPECTED = "annotations in ASAP's XML, without a document type or entities"
_AREAS = ("Polygon", "Spline", "Rectangle")
_WITHOUT_AREA = ("Dot", "PointSet", "Measurement", "None")


@dataclass(frozen=True)
class Groups:
    """What outlines mean, by the name of their group; a group that is in none of these is an error."""

    lesion: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


CAMELYON_GROUPS = Groups(lesion=("Tumor", "_0", "_1", "metastases"), excluded=("_2", "Exclusion", "normal"))


def read_asap(path: Path, groups: Groups = CAMELYON_GROUPS) -> Annotation:
    """Outlines of a slide, in the order of the file.

    Raises:
        UsageError: no such file, no XML of ASAP, one with entities or a document type, or a group nobody knows.
    """
    lesions: list[Region] = []
    excluded: list[Region] = []
    dropped = 0
    try:
        for element in _annotations(path):
            group = element.get("PartOfGroup", "None")
            if group in groups.ignored:
                continue
            if group not in groups.lesion + groups.excluded:
                raise _unknown_group(path, group, groups)
            region = _region(element)
            if region is None:
                dropped += 1
            else:
                (lesions if group in groups.lesion else excluded).append(region)
    except DefusedXmlException as error:
        raise not_of(path, _EXPECTED, f"refused, since it could harm ({type(error).__name__})") from error
    except (ParseError, ValueError) as error:
        raise not_of(path, _EXPECTED, str(error)[:200]) from error
    return Annotation(tuple(lesions), tuple(excluded), dropped)


def _annotations(path: Path) -> Iterator[Element]:
    """Elements that outline something, one at a time; what was handed out before is forgotten."""
    root: Element | None = None
    seen = False
    for event, element in iterparse(io.BytesIO(read_limited(path)), events=("start", "end"), forbid_dtd=True):
        if root is None:
            root = element
            if element.tag != "ASAP_Annotations":
                raise ValueError(f"the outermost element is {element.tag[:40]!r}, not ASAP_Annotations")
        seen = seen or element.tag == "Annotations"
        if event == "end" and element.tag == "Annotation":
            yield element
            element.clear()
    if not seen:
        raise ValueError("no element Annotations")


def _region(element: Element) -> Region | None:
    kind, name = element.get("Type", ""), element.get("Name", "")
    if kind not in _AREAS + _WITHOUT_AREA:
        raise ValueError(f"an outline of type {kind[:40]!r}")
    corners = [(_number(each, "Order"), _number(each, "X"), _number(each, "Y")) for each in element.iter("Coordinate")]
    corners.sort(key=lambda corner: corner[0])
    if len({order for order, _, _ in corners}) < len(corners):
        raise ValueError(f"outline {name[:40]!r} has two corners of one order")
    region = to_region(name, [(x, y) for _, x, y in corners])
    return region if kind in _AREAS else None


def _number(element: Element, attribute: str) -> float:
    text = element.get(attribute)
    if text is None:
        raise ValueError(f"a corner without {attribute}")
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"a corner with {attribute} = {text[:20]!r}") from error


def _unknown_group(path: Path, group: str, groups: Groups) -> UsageError:
    return UsageError(
        f"{path}: an outline of group {group[:40]!r}",
        f"lesions in {', '.join(groups.lesion)}; cut out {', '.join(groups.excluded) or 'of them nothing'}",
        "Say what it means: put it into lesion, excluded or ignored.",
    )
