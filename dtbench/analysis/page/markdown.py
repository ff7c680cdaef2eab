"""A suite's part of the report as Markdown, for a repository's web page or a pager."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from dtbench.analysis.page.html import SuitePage
from dtbench.analysis.tables.table import escape_markdown


def markdown(suite: SuitePage) -> str:
    """Return the whole text with its tables."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["md"] = escape_markdown
    source = (Path(__file__).parent / "templates" / "report.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=suite)
