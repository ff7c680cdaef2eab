"""LaTeX tables: what TeX itself says of them, and their structure where there is no TeX."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dtbench.analysis.page.paper_tables import all_paper_tables
from dtbench.analysis.tables.latex import escape_latex
from dtbench.analysis.tables.table import Cell, Column, Table

ROOT = Path(__file__).parents[2]
NASTY = [
    *(
        "<script>alert(1)</script>",
        "a|b",
        "50%_x&{}#$^~\\",
        "two\nlines",
        "é ß ø ﬁ ½ ① \uff21 ą ế",
        "≥ ≤ ≠ ± \xd7 → ∞ √ °",
    ),
    *("\N{ROCKET} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}\N{VARIATION SELECTOR-16}", "bell \x07 \x00"),
    *(
        "[1] first",
        "*",
        "--flag",
        "---",
        "\"q\" `b` 'c' ''",
        "?` !`",
        "Ψ \u03b1 ς Ωά",
        "中文 한",
        "Кир",
        "half \ud800",
    ),
    *("\N{RIGHT-TO-LEFT OVERRIDE}rtl", r"\input{/etc/passwd}", r"\end{document}", "%", "{", "}", "&", "a" * 3000, ""),
]
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex: install Debian's texlive-latex-base and texlive-latex-recommended to compile the tables",
)


def table_of(names: Sequence[str], *, columns: int = 2, name: str = "made-up") -> Table:
    heads = (Column("[a_b]"), *(Column(f"*{place} & %", number=True) for place in range(1, columns)))
    rows = tuple((Cell(text), *[Cell(text, strong=True)] * (columns - 1)) for text in names)
    return Table(name, f"Of {' '.join(names)}", heads, rows, tuple(names))


def compile_tex(folder: Path, texts: Sequence[str]) -> str:
    """What pdflatex says of a document with booktabs that inputs the texts; fail where it stops."""
    body = []
    for place, text in enumerate(texts):
        (folder / f"t{place}.tex").write_text(text, encoding="utf-8")
        body.append(rf"\input{{t{place}.tex}}\clearpage")
    document = "\n".join((r"\documentclass{article}\usepackage{booktabs}\begin{document}", *body, r"\end{document}"))
    (folder / "main.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=400)
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-2000:]
    return log


@needs_tex
def test_tex_compiles_whatever_a_ledger_says(tmp_path: Path) -> None:
    log = compile_tex(tmp_path, [table_of(NASTY).latex(), table_of(NASTY[:3]).latex("é/_")])
    assert "Missing character" not in log


@needs_tex
def test_tex_prints_every_character_or_what_stands_for_it(tmp_path: Path) -> None:
    blocks = ((0, 0x250), (0x2C0, 0x430), (0x1E00, 0x2300), (0xFB00, 0xFB07), (0x1F300, 0x1F340))
    every = "".join(chr(code) for low, high in blocks for code in range(low, high))
    rows = [every[start : start + 8] for start in range(0, len(every), 8)]
    table = replace(table_of(rows, columns=1), caption="C", notes=())
    assert "Missing character" not in compile_tex(tmp_path, [table.latex()])


@needs_tex
def test_tex_compiles_every_table_of_the_papers(tmp_path: Path) -> None:
    compile_tex(tmp_path, [table.latex() for table in all_paper_tables({})])


@needs_tex
def test_tex_compiles_every_table_of_the_reports_here(tmp_path: Path) -> None:
    compile_tex(tmp_path, [path.read_text() for path in sorted((ROOT / "report").glob("*/tables/*.tex"))])


def test_every_row_has_as_many_cells_as_its_tabular_columns() -> None:
    bare = re.sub(r"\\[\\{}&%]", "", table_of(NASTY, columns=3).latex().replace(r"\\" + "\n", "\n"))
    assert bare.count("{") == bare.count("}")
    inside = bare.split(r"\begin{tabular}{lrr}")[1].split(r"\bottomrule")[0]
    inside = inside.replace(r"\toprule", "").replace(r"\midrule", "")
    assert {line.count("&") + 1 for line in inside.splitlines() if line.strip()} == {3}


def test_what_is_special_to_tex_is_escaped() -> None:
    assert escape_latex("50%_x&{}#$") == r"50\%\_x\&\{\}\#\$"
    assert escape_latex("\\~^") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}"
    assert escape_latex("a\n b") == "a b"


def test_two_hyphens_stay_two_and_a_bracket_is_no_option() -> None:
    assert escape_latex("--flag") == "-{}-flag"
    assert escape_latex("[1]") == "{}[1]"


def test_characters_that_tex_lacks_become_what_it_can_print() -> None:
    assert escape_latex("é Å ß ﬁ ½ ≥ \N{MINUS SIGN}1") == r"é Å ß fi 1/2 $\geq$ $-$1"
    assert escape_latex("\N{ROCKET} 中 \x07") == "? ? ?"
    assert escape_latex("ą ế") == "a e"


def test_a_table_is_one_float_with_its_notes_below() -> None:
    text = Table("t", "T", (Column("a"), Column("n", number=True)), ((Cell("DT"), Cell("1")),), ("A note.",)).latex()
    assert r"\begin{tabular}{lr}" in text
    assert r"DT & 1 \\" in text
    assert text.index(r"\end{tabular}") < text.index("A note.") < text.index(r"\end{table}")
    assert text.count(r"\begin{table}") == 1
