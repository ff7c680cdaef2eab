"""Sphinx: how the pages of this folder become the documentation, `make docs`."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import docs_reference  # noqa: E402  # beside the project's other tools

project = "dtbench"
author = "The dtbench authors"
copyright = author  # noqa: A001  # Sphinx's name for it
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "dtbench"
html_copy_source = False
html_show_sourcelink = False
myst_heading_anchors = 3


def setup(app: Any) -> None:
    """Write the generated parts of a page when it is read."""

    def fill(app: Any, name: str, source: list[str]) -> None:
        source[0] = docs_reference.fill(source[0])

    app.connect("source-read", fill)
