"""Sphinx: how the pages of this folder become the documentation, `make docs`."""

import re
from typing import Any

import sphinx.pycode.parser

import dtbench
from dtbench.suite import json_schema

project = "dtbench"
author = "The dtbench authors"
copyright = author  # noqa: A001  # Sphinx's name for it
version = release = dtbench.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.typer"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "dtbench"
html_copy_source = False
html_show_sourcelink = False
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
# Fields are described by the comment behind them, which autodoc reads only where it begins with "#:".
sphinx.pycode.parser.comment_re = re.compile(r"^\s*#:? ?(?!type:|noqa)(.*)\r?\n?$")

# autodoc shows no defaults of pydantic's fields.
MODELS = {f"{one.__module__}.{one.__name__}": one.model_fields for one in json_schema.MODELS}


def setup(app: Any) -> None:
    """Read docstrings as the Markdown that they are written in, as far as they use it."""
    app.connect("autodoc-process-docstring", _to_rest)
    app.connect("autodoc-process-signature", _without_fields)


def _without_fields(app: Any, what: str, name: str, obj: Any, options: Any, *signature: str) -> tuple[str, str] | None:
    """Leave out the signature of a class whose fields are all listed below it."""
    return ("", "") if what == "class" and options.get("undoc-members") else None


def _to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [_line_to_rest(line) for line in lines]
    parent, _, field = name.rpartition(".")
    found = MODELS.get(parent, {}).get(field) if what == "attribute" else None
    if found is not None and not found.is_required():
        default = found.get_default()
        lines[-1:] = [*lines[-1:], "", f"Default: ``{getattr(default, 'model_dump', lambda: default)()!r}``"]


def _line_to_rest(line: str) -> str:
    parts = re.split(r"(`+[^`]*`+)", line)
    parts[1::2] = ["``" + code.strip("`") + "``" for code in parts[1::2]]
    parts[::2] = [re.sub(r"([*|]|_\b)", r"\\\1", text) for text in parts[::2]]
    return "".join(parts)
