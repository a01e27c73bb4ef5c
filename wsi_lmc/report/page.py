"""The page: one file of HTML that loads nothing, with a policy that forbids it to.

Jinja2 escapes every text. The style sheet and a small script (it sorts tables; nothing needs it) stand in the page.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from wsi_lmc.report.blocks import Section

_TEMPLATES = files("wsi_lmc.report") / "templates"


def render(title: str, summary: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = _read("page.css"), _read("page.js")
    return environment.get_template("page.html").render(
        title=title,
        summary=summary,
        sections=sections,
        policy=policy(script),
        style=Markup(style),  # noqa: S704  our own
        script=Markup(script),  # noqa: S704  our own
    )


def policy(script: str) -> str:
    """Nothing is loaded but what stands in the page, and nothing runs but its own script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
