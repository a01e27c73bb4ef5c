"""Pictures as they stand in the page: SVG drawn by matplotlib with text as text, in the page's own fonts and colours.

What matplotlib draws black takes the colour of the page's text, so that it can be read in light and dark. Names within
an SVG are made its own, for a page holds many. Thousands of points are a bitmap inside of it, which is smaller.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names hold what they like, also $
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font-family: [^;]+;?")


def svg(draw: Callable[[], Figure], prefix: str, alt: str) -> Markup:
    """A figure as SVG to stand in the page.

    Args:
        draw: makes the figure.
        prefix: letters that no other picture of the page has; names in the SVG begin with it.
        alt: the picture in words.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": prefix}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # the reader's fonts have it
        figure = draw()
        FigureCanvasSVG(figure)
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, dpi=120, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314  what matplotlib has just written
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if element.tag == "style":
            element.text = ""  # round joins of lines alone, which the page asks for itself
        _own(element, prefix)
    width, height = (round(float(size)) for size in root.attrib["viewBox"].split()[2:])
    root.attrib.update({"role": "img", "aria-label": alt, "width": str(width), "height": str(height)})
    root.attrib.pop("version", None)
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))  # noqa: S704  escaped


def data_uri(content: bytes, kind: str) -> str:
    """A file as part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _own(element: ElementTree.Element, prefix: str) -> None:
    """Own names, the page's colour and font."""
    values = element.attrib
    if "id" in values:
        values["id"] = f"{prefix}-{values['id']}"
    link = values.pop(_XLINK, None)
    if link is not None:
        values["href"] = f"#{prefix}-{link[1:]}" if link.startswith("#") else link
    for name in ("clip-path", "style", "fill", "stroke"):
        if name in values:
            text = values[name].replace("url(#", f"url(#{prefix}-").replace("#000000", "currentColor")
            values[name] = _FONT.sub("", text)
    if element.tag == "text" and "fill" not in values.get("style", ""):
        values["fill"] = "currentColor"
