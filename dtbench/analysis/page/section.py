"""What a section of the page is: a heading, paragraphs, tables and figures."""

import re
from dataclasses import dataclass

from dtbench.analysis.figures import Drawing
from dtbench.analysis.tables.table import Table


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, in this order."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    folded: bool = False  # long tables that few readers open
    in_page: bool = True  # False: in files and Markdown only, because the page shows it otherwise

    @property
    def anchor(self) -> str:
        """Return the heading as an HTML id."""
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")
