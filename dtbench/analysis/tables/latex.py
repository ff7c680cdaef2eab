"""LaTeX of tables and of their text, in UTF-8; it needs the package booktabs and no other."""

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

Line = Sequence[tuple[str, bool]]  # of each cell: its text, and whether it is bold

_CAPTION = 1500  # characters: TeX measures a caption in one line, and has no dimension beyond six metres
_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "\N{EN DASH}": r"\textendash{}", "\N{EM DASH}": r"\textemdash{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}", "\N{MINUS SIGN}": "$-$", "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{INFINITY}": r"$\infty$", "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
}  # fmt: skip
_LETTERS = {chr(code) for code in range(0xC0, 0x100)} - set("ÐÞðþ\xd7÷")  # those that LaTeX's default fonts have


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is; letters that its fonts lack lose their accents or become "?"."""
    escaped = "".join(map(_character, unicodedata.normalize("NFC", " ".join(text.split()))))
    escaped = re.sub(r"-(?=-)", "-{}", escaped)  # two hyphens would become a dash
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped  # or \\ and \midrule take it for theirs


def latex_label(*names: str) -> str:
    """Return a label that LaTeX and its tools take, e.g. tab:atari-scores."""
    return "tab:" + "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in names)))


def latex_table(
    caption: str, label: str, *, numbers: Sequence[bool], lines: Sequence[Line], notes: Sequence[str]
) -> str:
    """Return one float: `lines` are the head and the rows, `numbers` says which columns stand flush right."""
    head, *rows = (f"    {' & '.join(_cell(*cell) for cell in line)} \\\\" for line in lines)
    made = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escape_latex(textwrap.shorten(caption, _CAPTION, placeholder=' ...'))}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}",
        r"    \toprule",
        head,
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}",
        *_notes(notes),
        r"\end{table}",
    ]
    return "\n".join(made) + "\n"


def _cell(text: str, strong: bool) -> str:
    return rf"\textbf{{{escape_latex(text)}}}" if strong else escape_latex(text)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield r"  \par\medskip"
        yield r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"
        yield from (f"    {escape_latex(note)}\\par" for note in notes)
        yield r"  \end{minipage}"


def _character(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if " " <= character <= "~" or character in _LETTERS:
        return character
    plain = unicodedata.normalize("NFKD", character).replace("\N{FRACTION SLASH}", "/").encode("ascii", "ignore")
    return "".join(_SIGNS.get(letter, letter) for letter in plain.decode() if letter.isprintable()) or "?"
