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
