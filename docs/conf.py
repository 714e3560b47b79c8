"""Makes the pages under ``docs/`` into HTML and manual pages: ``make docs``.

The pages are plain Markdown that reads well where it lies. What only Sphinx needs stands in HTML
comments there, which `docs.marks` understands.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "HarpCaller"
author = "the authors of HarpCaller"
project_copyright = author
version = release = version_of("harpcaller")

extensions = ["myst_parser", "sphinx.ext.autodoc", "docs.marks"]
exclude_patterns = ["_build"]
highlight_language = "none"
nitpicky = True
nitpick_ignore = [("py:exc", "harp.settings.ConfigError")]  # a class without a page
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # what a parameter is stands in its description
default_role = "py:obj"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "HarpCaller"
html_show_sourcelink = False
html_show_copyright = False

man_pages = [
    ("reference/harp", "harp", "call procedures on remote machines", "", 1),
    ("reference/client", "harp", "client library of HarpCaller", "", 3),
    ("reference/harpd-configuration", "harpd.conf", "configuration of harpd", "", 5),
    ("reference/harpcaller-configuration", "harpcaller.yaml", "configuration of harpcaller", "", 5),
    ("reference/harpd", "harpd", "daemon that runs procedures", "", 8),
    ("reference/harpcaller", "harpcaller", "dispatcher of calls", "", 8),
]

# Nothing is fetched from elsewhere, neither by who builds the pages nor by who reads them.
html_theme_options: dict[str, object] = {"footer_icons": []}
