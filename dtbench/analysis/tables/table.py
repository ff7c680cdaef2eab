"""One table object for all formats.

HTML, Markdown, LaTeX and CSV are written from the same cells, so that formats cannot differ.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dtbench.analysis.statistics import Interval
from dtbench.analysis.tables.latex import escape_latex as escape_latex
from dtbench.analysis.tables.latex import latex_label, latex_table
from dtbench.errors import decimals_of

MANY_NOTES = 3  # more stand behind a line that opens
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"  # a hole; what stands before a negative number


@dataclass(frozen=True, slots=True)
class Cell:
    """What one place of a table says."""

    text: str
    value: float | int | None = None  # the number behind the text, for CSV and for sorting
    strong: bool = False
    kind: str = ""  # a CSS class: hole, agrees, differs, ...
    link: str = ""  # the id on the page that the text leads to, e.g. cell-0123456789abcdef
    rank: float | None = None  # what a page sorts by where the CSV keeps the text
    short: str = ""  # what a page shows in place of the text, which it tells on hovering


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; `shown` is False for what only the CSV has room for."""

    name: str
    number: bool = False
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below a caption; each row's first cell is its heading."""

    name: str  # of its files
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def html(self) -> Markup:
        """Return a table with caption, scopes and the numbers behind its cells, in a box that scrolls if it must.

        An interval stands below its number; a number of seeds that most cells share stands in the caption.
        """
        seeds = self._common_seeds()
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(_css("number" if column.number else ""), printable(column.name))
            for column in self._shown_columns()
        )
        body = Markup("\n").join(self._html_row(row, seeds) for row in self.rows)
        notes = Markup("").join(Markup('\n<p class="note">{}</p>').format(printable(note)) for note in self.notes)
        if len(self.notes) > MANY_NOTES:
            notes = Markup("\n<details>\n<summary>{} notes</summary>{}\n</details>").format(len(self.notes), notes)
        return Markup(
            '<div class="scroll" role="region" tabindex="0" aria-label="{caption}">\n'
            '<table id="{id}" data-table="{name}">\n<caption>{caption}</caption>\n'
            "<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>{notes}"
        ).format(
            caption=printable(self.caption) + (f" ({seeds} unless a cell says otherwise)" if seeds else ""),
            id=f"table-{_plain(self.name)}",
            name=printable(self.name),
            head=head,
            body=body,
            notes=notes,
        )

    def markdown(self) -> str:
        """Return a pipe table below its caption, the notes after it."""
        head = [escape_markdown(column.name) for column in self._shown_columns()]
        rule = ["---:" if column.number else ":---" for column in self._shown_columns()]
        rows = [[_markdown_cell(cell) for cell in self._shown_cells(row)] for row in self.rows]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        notes = "".join(f"\n{escape_markdown(note)}\n" for note in self.notes)
        return f"**{escape_markdown(self.caption)}**\n\n" + "\n".join(lines) + "\n" + notes

    def latex(self, prefix: str = "") -> str:
        """Return a booktabs table with caption, label and notes; it needs the package booktabs and no other.

        `prefix` tells the labels of equally named tables apart, e.g. by their suite.
        """
        columns = self._shown_columns()
        head = [(column.name, False) for column in columns]
        rows = [[(cell.text, cell.strong) for cell in self._shown_cells(row)] for row in self.rows]
        numbers = [column.number for column in columns]
        label = latex_label(prefix, self.name)
        return latex_table(self.caption, label, numbers=numbers, lines=[head, *rows], notes=self.notes)

    def csv(self) -> str:
        """Return every column as CSV, numbers with ten digits; dashes are left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([_csv_cell(Cell(column.name)) for column in self.columns])
        writer.writerows([[_csv_cell(cell) for cell in row] for row in self.rows])
        return text.getvalue()

    def _shown_columns(self) -> list[Column]:
        return [column for column in self.columns if column.shown]

    def _shown_cells(self, row: Sequence[Cell]) -> list[Cell]:
        return [cell for cell, column in zip(row, self.columns, strict=True) if column.shown]

    def _common_seeds(self) -> str:
        """Return what most cells say of their seeds, like "n = 3"; "" where none does."""
        found = [seeds[1] for row in self.rows for cell in row if (seeds := _SEEDS.search(cell.text))]
        return max(dict.fromkeys(found), key=found.count, default="")

    def _html_row(self, row: Sequence[Cell], seeds: str) -> Markup:
        first, *others = zip(self._shown_cells(row), self._shown_columns(), strict=True)
        cells = [Markup('<th scope="row"{}>{}</th>').format(_data(first[0]), _html_text(first[0], seeds))]
        for cell, column in others:
            kinds = f"{'number' if column.number else ''} {cell.kind}".strip()
            cells.append(Markup("<td{}{}>{}</td>").format(_css(kinds), _data(cell), _html_text(cell, seeds)))
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def hole() -> Cell:
    """Return a cell where something might be expected and nothing is."""
    return Cell(DASH, kind="hole")


def number_cell(value: float | None, decimals: int | None = None) -> Cell:
    """Return a number, or a visible hole."""
    return hole() if value is None or math.isnan(value) else Cell(number(value, decimals), value)


def number(value: float | None, decimals: int | None = None) -> str:
    """Return a number as the report prints it, a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    decimals = decimals_of(value) if decimals is None else decimals
    text = "\N{INFINITY}" if math.isinf(value) else f"{abs(value):.{decimals}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.") else text


def with_interval(value: float, interval: Interval | None, decimals: int | None = None) -> str:
    """Return a text like "61.2 [50.1, 70.3]"."""
    if decimals is None:
        decimals = decimals_of(value, *((interval.low, interval.high) if interval else ()))
    ends = f" [{number(interval.low, decimals)}, {number(interval.high, decimals)}]" if interval else ""
    return number(value, decimals) + ends


def printable(text: str) -> str:
    """Return the text on one line; what no screen shows or turns its direction becomes a replacement character."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


def escape_markdown(text: str) -> str:
    """Return text that Markdown prints as it is, inside pipe tables and at the beginning of a line too."""
    text = re.sub(r"([\\`*_|<$~])", r"\\\1", printable(text))
    text = re.sub(r"&(?=#?\w+;)|\](?=[(\[:])", r"\\\g<0>", text)
    text = re.sub(r"^(?:[#>]|[+=-](?=[\s+=-]|$))", r"\\\g<0>", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


# Control characters, overrides of direction, lone surrogates and what is no character.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


_SEEDS = re.compile(r" \((n = \d+)\)$")
_INTERVAL = re.compile(rf"([{MINUS}\d.,]+(?: %)?) (\[.*)", re.DOTALL)


def _html_text(cell: Cell, seeds: str) -> Markup:
    shown = printable(cell.short or cell.text).removesuffix(f" ({seeds})")
    number, below = found.groups() if (found := _INTERVAL.fullmatch(shown)) else (shown, "")
    text = escape(number)
    text = Markup("<strong>{}</strong>").format(text) if cell.strong else text
    text = Markup('<a href="#{}">{}</a>').format(cell.link, text) if cell.link else text
    if below:
        text += Markup("<small>{}</small>").format(below)
    if cell.short and cell.kind != "hole":
        text = Markup('<span title="{}">{}</span>').format(printable(cell.text), text)
    return text


def _data(cell: Cell) -> Markup:
    value = cell.value if cell.rank is None else cell.rank
    known = value is not None and math.isfinite(value)
    return Markup(' data-value="{}"').format(f"{value:.10g}") if known else Markup("")


def _css(kinds: str) -> Markup:
    return Markup(' class="{}"').format(kinds) if kinds else Markup("")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.strong and text else text


def _csv_cell(cell: Cell) -> str:
    if cell.value is not None and math.isfinite(cell.value):
        return f"{cell.value:.10g}"
    if cell.text == DASH:  # programs read nothing where people read a dash
        return ""
    text = printable(cell.text)
    # A text that a spreadsheet would evaluate; a number with its interval is none.
    return f"'{text}" if re.match(r"[=@]|[+-](?![\d.])", text) else text
