"""What a section of the page is: a heading, paragraphs, tables and figures."""

from dataclasses import dataclass

from dtbench.analysis.figures.style import Drawing
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
