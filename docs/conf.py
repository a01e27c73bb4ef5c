"""Settings of the manual's site: ``make docs`` builds it from these pages, without a network, into ``docs/_build``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wsi_lmc import __version__

project = "wsi-lmc"
release = version = __version__
copyright = "the authors of wsi-lmc, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
suppress_warnings = ["toc.empty_glob"]  # a page that not every version has

html_theme = "furo"
html_title = f"wsi-lmc {__version__}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_copy_source = False

myst_heading_anchors = 3  # as on GitHub: [x](page.md#heading)
myst_enable_extensions = []

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
toc_object_entries = False


def setup(app):  # noqa: ANN001, ANN201  Sphinx is not installed where types are checked
    """Have the pages changed as they are read."""
    app.connect("source-read", _append_flags)
    app.connect("autodoc-process-docstring", _keep_colons, priority=600)  # after napoleon's 500


def _append_flags(app, docname: str, source: list[str]) -> None:  # noqa: ANN001, ARG001
    if docname == "commands":
        from docs.flags import all_commands

        source[0] += f"\n{all_commands()}"


def _keep_colons(app, what: str, name: str, obj, options, lines: list[str]) -> None:  # noqa: ANN001, ARG001, PLR0913
    """Put back what napoleon took for a property's type: whatever stands before a colon in its first line."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what in ("property", "attribute", "data") and types:
        lines.remove(types[-1])
        lines[0] = f"{types[-1].removeprefix(':type: ')}: {lines[0]}"
