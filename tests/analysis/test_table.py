"""The table object: escapes, links and the numbers behind cells, in all formats."""

import csv
import io

import pytest

from dtbench.analysis.tables.table import Cell, Column, Table, escape_markdown, number, number_cell

NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    "50%_x&{}",
    "two\nlines\tand a tab",
    "é ≥ ß ﬁ ½",
    "\N{ROCKET} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
    "bell \x07 and nothing \x00",
    "\N{RIGHT-TO-LEFT OVERRIDE}drawkcab",
    "half \ud800 of a pair",
    '" onmouseover="alert(1)',
    "[a](javascript:alert(1))",
    "&lt;b&gt;",
    "# no heading",
]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def table_of(*cells: Cell) -> Table:
    columns = (Column("Contender"), Column("n", number=True))
    return Table("scores", "Scores", columns, tuple((Cell("DT"), cell) for cell in cells))


def test_every_format_escapes_what_it_must() -> None:
    table = Table(
        "t", "5 % & more_", (Column("a|b"), Column("n", number=True)), ((Cell("<x> | 10 % & a_b"), Cell("1")),)
    )
    assert "&lt;x&gt; | 10 % &amp; a_b" in table.html()
    assert "<x>" not in table.html()
    assert r"| \<x> \| 10 % & a\_b | 1 |" in table.markdown()
    assert r"\textless{}x\textgreater{} \textbar{} 10 \% \& a\_b & 1 \\" in table.latex()
    assert r"\caption{5 \% \& more\_}" in table.latex()
    assert read(table.csv())[0] == {"a|b": "<x> | 10 % & a_b", "n": "1"}


def test_tables_can_be_read_aloud() -> None:
    text = Table("t", "Scores", (Column("Contender"), Column("n", number=True)), ((Cell("DT"), Cell("1")),)).html()
    assert "<caption>Scores</caption>" in text
    assert '<th scope="col">Contender</th>' in text
    assert '<th scope="row">DT</th>' in text


@pytest.mark.parametrize(("count", "folded"), [(3, False), (4, True)])
def test_many_notes_stand_behind_a_line_that_opens(count: int, folded: bool) -> None:
    text = Table("t", "Scores", (Column("n"),), ((Cell("1"),),), tuple(f"note {n}" for n in range(count))).html()
    assert ("<summary>4 notes</summary>" in text) == folded
    assert text.count('<p class="note">') == count


def test_latex_needs_booktabs_alone() -> None:
    text = Table(
        "t", "Scores", (Column("Contender"), Column("n", number=True)), ((Cell("DT", strong=True), Cell("∞")),)
    ).latex()
    assert r"\begin{tabular}{lr}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\textbf{DT} & $\infty$ \\" in text
    assert text.isascii()


def test_numbers_are_printed_with_a_minus_and_without_a_negative_zero() -> None:
    assert number(-1.25, 1) == "\N{MINUS SIGN}1.2"
    assert number(-0.01, 1) == "0.0"
    assert number(None) == number(float("nan")) == "\N{EN DASH}"


@pytest.mark.parametrize("text", NASTY)
def test_whatever_a_ledger_says_stays_one_cell_in_every_format(text: str) -> None:
    table = Table(text, text, (Column(text), Column("n")), ((Cell(text), Cell("1")), (Cell("b"), Cell("2"))), (text,))
    html, lines = table.html(), [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert html.count("<td") == html.count("<tr>") - 1 == 2
    assert not any(tag in html for tag in ("<script", '" onmouseover', "\x00", "\x07", "\n\n"))
    assert [line.replace("\\|", "").count("|") for line in lines] == [3, 3, 3, 3]
    assert [len(row) for row in csv.reader(io.StringIO(table.csv()))] == [2, 2, 2]
    for page in (html, table.markdown(), table.csv(), table.latex()):
        page.encode()  # a lone surrogate would stop this


def test_what_no_screen_shows_is_seen_to_be_missing() -> None:
    assert "bell \N{REPLACEMENT CHARACTER} and" in table_of(Cell("bell \x07 and")).csv()


def test_markdown_makes_no_link_entity_or_heading_of_a_name() -> None:
    assert escape_markdown("[a](b)") == r"[a\](b)"
    assert escape_markdown("&lt;") == r"\&lt;"
    assert escape_markdown("# a") == r"\# a"
    assert escape_markdown("1. a") == r"1\. a"
    assert escape_markdown("70.0 [65.0, 75.0]") == "70.0 [65.0, 75.0]"


def test_html_has_the_number_behind_a_cell_to_sort_by() -> None:
    html = table_of(Cell("70.0", 70.0), Cell("60.0 [50, 70]", rank=60.0), Cell("not run")).html()
    assert '<td class="number" data-value="70">70.0</td>' in html
    assert '<td class="number" data-value="60">60.0<small>[50, 70]</small></td>' in html
    assert '<td class="number">not run</td>' in html


def test_a_number_of_seeds_that_most_cells_share_stands_in_the_caption() -> None:
    html = table_of(Cell("7.0 [5, 9] (n = 3)"), Cell("6.0 [5, 7] (n = 3)"), Cell("1.0 [0, 2] (n = 2 of 3)")).html()
    assert "<caption>Scores (n = 3 unless a cell says otherwise)</caption>" in html
    assert "7.0<small>[5, 9]</small>" in html
    assert "1.0<small>[0, 2] (n = 2 of 3)</small>" in html


def test_a_table_can_be_found_on_the_page() -> None:
    assert '<table id="table-scores" data-table="scores">' in table_of(Cell("1")).html()


def test_only_html_links_a_cell() -> None:
    table = table_of(Cell("70.0", 70.0, link="cell-12"))
    assert '<a href="#cell-12">70.0</a>' in table.html()
    assert not any("cell-12" in text for text in (table.markdown(), table.latex(), table.csv()))


def test_nan_and_infinity_are_no_numbers_in_any_format() -> None:
    table = table_of(number_cell(float("nan")), Cell("\N{INFINITY}", float("inf")))
    assert "nan" not in table.html() + table.markdown() + table.latex() + table.csv()
    assert "data-value" not in table.html()
    assert [row["n"] for row in read(table.csv())] == ["", "\N{INFINITY}"]


@pytest.mark.parametrize("text", ["=cmd|'/C calc'!A0", "@SUM(1)", "+HYPERLINK(1)", "-cmd", "= 1", "+-1"])
def test_no_cell_of_the_csv_is_a_formula(text: str) -> None:
    table = Table("t", "", (Column("contender"), Column(text)), ((Cell(text), Cell("-3.5 (-4.0 to -3.0)")),))
    header, row = csv.reader(io.StringIO(table.csv()))
    assert header == ["contender", f"'{text}"]
    assert row == [f"'{text}", "-3.5 (-4.0 to -3.0)"]


def test_only_a_bare_dash_is_empty_in_the_csv() -> None:
    dash = "\N{EN DASH}"
    assert [row["n"] for row in read(table_of(Cell(dash), Cell(f"{dash} / 3.1")).csv())] == ["", f"{dash} / 3.1"]


def test_labels_of_latex_are_distinguished_by_suite() -> None:
    assert r"\label{tab:scores}" in table_of(Cell("1")).latex()
    assert r"\label{tab:my-suite-2-scores}" in table_of(Cell("1")).latex("my suite_2")
