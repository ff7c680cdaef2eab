"""What a section of the page is: a heading, paragraphs, tables and figures."""

from dataclasses import dataclass

from dtbench.analysis.answer import Chip
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.tables.table import Table

SEVERAL = 3  # tasks, from which on figures that resemble each other stand behind one for all, or the first


@dataclass(frozen=True, slots=True)
class Headline:
    """What a reader is to know after ten seconds."""

    sentence: str
    caveat: str = ""  # of the data, budgets and seeds
    chips: tuple[Chip, ...] = ()  # one a domain


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, in this order."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    folded: bool = False  # long tables that few readers open
    closed: str = ""  # the line that opens the whole section
    more: tuple[Drawing, ...] = ()  # figures that few readers open
    headline: Headline | None = None  # above the paragraphs
    in_page: bool = True  # False: in files and Markdown only, because the page shows it otherwise
