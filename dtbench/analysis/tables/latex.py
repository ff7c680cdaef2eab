"""LaTeX of tables and of their text: pure ASCII, and no package but booktabs.

Any character can stand in a contender's name, and LaTeX stops at those that its fonts lack. So accents become accent
commands, letters and signs that LaTeX has become those, compatible forms become plain ones, symbols such as emoji
become their names in parentheses, and other letters their code points, e.g. (U+4E2D). What has neither becomes "?".
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# What an article has room for: characters in a line, and lines in a float, of \normalsize and of \footnotesize.
_WIDTH, _SMALL_WIDTH = 66, 80
_LINES, _SMALL_LINES = 38, 50
_GAP, _SMALL_GAP = 2.5, 1.5  # characters' room between columns
_NARROW = 12  # no column of so many characters is wrapped
_CAPTION = 2000  # characters of LaTeX: TeX measures captions in one line, and none of six metres
_FLOATS = 12  # after so many a page break lets LaTeX place what it holds back

Line = Sequence[tuple[str, bool]]  # of each cell: its text, and whether it is bold


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns that stand in one float, and how."""

    columns: tuple[int, ...]
    widths: tuple[float, ...]  # in characters
    wrapped: frozenset[int]
    small: bool


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, wherever it stands."""
    escaped = _escaped(text)
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped  # or \\ and \midrule take it for theirs


def latex_label(*names: str) -> str:
    """A label that LaTeX and its tools take, e.g. tab:atari-scores."""
    return "tab:" + "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in names)))


def latex_table(
    caption: str, label: str, *, numbers: Sequence[bool], lines: Sequence[Line], notes: Sequence[str]
) -> str:
    """One float, or several where a page has no room for all rows or columns; the notes stand below the last one.

    `lines` are the head and the rows, `numbers` says which columns stand flush right. Tables wider than a line are set
    small, with long cells wrapped; what is wider still goes on in a further float, its first columns repeated.
    """
    head, rows = lines[0], lines[1:]
    parts = [(layout, part) for layout in _layouts(numbers, lines) for part in _pages(layout, rows)]
    made = []
    for place, (layout, part) in enumerate(parts, start=1):
        told = f"{caption} (part {place} of {len(parts)})" if len(parts) > 1 else caption
        made += [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{_caption(told)}}}",
            f"  \\label{{{label}{f'-{place}' if place > 1 else ''}}}",
            *([r"  \footnotesize", r"  \setlength{\tabcolsep}{3pt}"] if layout.small else []),
            f"  \\begin{{tabular}}{{{_letters(layout, numbers)}}}",
            r"    \toprule",
            _line(head, layout),
            r"    \midrule",
            *(_line(row, layout) for row in part),
            r"    \bottomrule",
            r"  \end{tabular}",
            *(_notes(notes) if place == len(parts) else ()),
            r"\end{table}",
            *([r"\clearpage"] if place % _FLOATS == 0 and place < len(parts) else []),
        ]
    return "\n".join(made) + "\n"


def _caption(text: str) -> str:
    escaped = escape_latex(text)
    return escaped if len(escaped) <= _CAPTION else _caption(text[: len(text) * 3 // 4] + " ...")


def _layouts(numbers: Sequence[bool], lines: Sequence[Line]) -> Iterator[_Layout]:
    """One for a table as wide as a page, otherwise one for each group of columns beside the first ones."""
    every = range(len(numbers))
    natural = [max(len(line[place][0]) for line in lines) for place in every]
    if sum(natural) + _GAP * len(natural) <= _WIDTH:
        yield _Layout(tuple(every), tuple(natural), frozenset(), small=False)
        return
    least = [min(natural[place], _longest_word(lines, place)) for place in every]
    leading = numbers.index(True) if True in numbers else 1
    leading = leading if 1 <= leading <= 3 else 1
    group = list(range(leading))
    for place in range(leading, len(numbers)):
        room = sum(least[other] + _SMALL_GAP for other in (*group, place))
        if room > _SMALL_WIDTH and len(group) > leading:
            yield _spread(group, natural, least)
            group = list(range(leading))
        group.append(place)
    yield _spread(group, natural, least)


def _spread(group: Sequence[int], natural: Sequence[int], least: Sequence[int]) -> _Layout:
    """Share out what is left of a line to the columns that could use it."""
    left = _SMALL_WIDTH - sum(least[place] + _SMALL_GAP for place in group)
    wanted = sum(natural[place] - least[place] for place in group)
    part = max(0.0, min(1.0, left / wanted)) if wanted else 1.0
    widths = tuple(least[place] + part * (natural[place] - least[place]) for place in group)
    wrapped = frozenset(place for place in group if part < 1 and natural[place] > least[place])
    return _Layout(tuple(group), widths, wrapped, small=True)


def _longest_word(lines: Sequence[Line], place: int) -> int:
    """Of a column: what cannot be wrapped, but for words so long that they may stick out."""
    words = (word for line in lines for word in re.split(r"[\s-]", line[place][0]))
    return max(_NARROW, *(min(len(word), 2 * _NARROW) + 1 for word in words))


def _pages(layout: _Layout, rows: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The rows in parts that fit on a page."""
    room = _SMALL_LINES if layout.small else _LINES
    part: list[Line] = []
    used = 0
    for row in rows:
        sizes = zip(layout.columns, layout.widths, strict=True)
        height = max(math.ceil(len(row[place][0]) / max(1.0, 0.9 * width if place in layout.wrapped else math.inf))
                     for place, width in sizes)  # fmt: skip
        if part and used + max(1, height) > room:
            yield part
            part, used = [], 0
        part.append(row)
        used += max(1, height)
    yield part


def _letters(layout: _Layout, numbers: Sequence[bool]) -> str:
    """The columns, as a tabular wants them."""
    letters = []
    for place, width in zip(layout.columns, layout.widths, strict=True):
        plain = "r" if numbers[place] else "l"
        letters.append(rf"p{{{width / _SMALL_WIDTH:.3f}\linewidth}}" if place in layout.wrapped else plain)
    return "".join(letters)


def _line(cells: Line, layout: _Layout) -> str:
    texts = [_cell(*cells[place], wrap=place in layout.wrapped) for place in layout.columns]
    end = r"\tabularnewline" if layout.wrapped else r"\\"  # in wrapped cells \\ would break a line
    return f"    {' & '.join(texts)} {end}"


def _cell(text: str, strong: bool, *, wrap: bool) -> str:
    escaped = _breakable(text) if wrap else escape_latex(text)
    escaped = rf"\textbf{{{escaped}}}" if strong else escaped
    return rf"\raggedright {escaped}" if wrap else escaped


def _breakable(text: str) -> str:
    """Text in which long words, digests for example, may go on in the next line."""
    words = (re.findall(rf".{{1,{2 * _NARROW}}}", word) for word in text.split())
    return " ".join(r"\allowbreak{}".join(map(_escaped, pieces)) for pieces in words)


def _escaped(text: str) -> str:
    characters = unicodedata.normalize("NFC", " ".join(text.split()))
    return re.sub(r"-(?=-)", "-{}", "".join(map(_character, characters)))  # two hyphens would become a dash


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield r"  \par\medskip"
        yield r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"
        yield from (f"    {escape_latex(note)}\\par" for note in notes)
        yield r"  \end{minipage}"


def _character(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if " " <= character <= "~":
        return character
    return _accented(character) or _compatible(character) or _named(character)


def _accented(character: str) -> str:
    """A plain letter below an accent command; the letter alone where LaTeX's first fonts have no such accent."""
    base, *marks = list(unicodedata.normalize("NFD", character))
    if not marks or not all(map(unicodedata.combining, marks)) or base in ("\\", "{", "}"):
        return ""
    text = _character(base)
    for mark in marks:
        if mark in _ACCENTS:
            text = rf"\{_ACCENTS[mark]}{{{text}}}"
    return text


def _compatible(character: str) -> str:
    """What stands for the character where forms do not matter: a ligature's letters, a wide letter's plain one."""
    plain = unicodedata.normalize("NFKC", character)
    return "" if plain == character else "".join(map(_character, plain))


def _named(character: str) -> str:
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if category in ("Mn", "Me", "Cf"):  # marks on what stands before, joiners, directions
        return ""
    if greek := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", name):
        return _greek(greek[2], capital=greek[1] == "CAPITAL") or f"({name.lower()})"
    if category in ("Sm", "So", "Sc", "Sk", "Po", "Pd", "Ps", "Pe") and name:
        return f"({name.lower()})"
    return f"(U+{ord(character):04X})" if name else "?"


def _greek(name: str, *, capital: bool) -> str:
    name = {"LAMDA": "LAMBDA"}.get(name, name)
    if not capital:
        return {"OMICRON": "o", "FINAL": r"$\varsigma$"}.get(name, rf"$\{name.lower()}$" if name in _GREEK else "")
    if name in _GREEK_CAPITALS:
        return rf"$\{name.capitalize()}$"
    return _LATIN_CAPITALS.get(name, "")


_GREEK = {
    "ALPHA", "BETA", "GAMMA", "DELTA", "EPSILON", "ZETA", "ETA", "THETA", "IOTA", "KAPPA", "LAMBDA", "MU", "NU", "XI",
    "PI", "RHO", "SIGMA", "TAU", "UPSILON", "PHI", "CHI", "PSI", "OMEGA",
}  # fmt: skip
_GREEK_CAPITALS = {"GAMMA", "DELTA", "THETA", "LAMBDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"}
_LATIN_CAPITALS = {
    "ALPHA": "A", "BETA": "B", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "IOTA": "I", "KAPPA": "K", "MU": "M",
    "NU": "N", "OMICRON": "O", "RHO": "P", "TAU": "T", "CHI": "X",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"''", "`": r"\`{}", "\u2018": "{`}", "\u2019": "'", "\u201c": "{``}", "\u201d": "''",
    "\u2013": r"\textendash{}", "\u2014": r"\textemdash{}", "\u2010": "-", "\u2011": "-", "\u2212": "$-$",
    "\u2026": r"\dots{}", "\u2044": "/", "\xd7": r"$\times$", "÷": r"$\div$", "∞": r"$\infty$", "±": r"$\pm$",
    "∓": r"$\mp$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$", "≈": r"$\approx$", "≡": r"$\equiv$",
    "\u223c": r"$\sim$", "∝": r"$\propto$", "·": r"$\cdot$", "√": r"$\surd$", "∑": r"$\sum$", "∏": r"$\prod$",
    "∫": r"$\int$", "∂": r"$\partial$", "∇": r"$\nabla$", "∈": r"$\in$", "∅": r"$\emptyset$", "∩": r"$\cap$",
    "\u222a": r"$\cup$", "⊂": r"$\subset$", "∀": r"$\forall$", "∃": r"$\exists$", "¬": r"$\neg$",
    "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "↔": r"$\leftrightarrow$", "⇒": r"$\Rightarrow$", "°": r"$^{\circ}$", "²": r"$^{2}$", "³": r"$^{3}$",
    "¹": r"$^{1}$", "µ": r"$\mu$", "•": r"$\bullet$", "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}",
    "©": r"\copyright{}", "£": r"\pounds{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}",
    "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "\u0131": r"\i{}", "¿": "?`", "¡": "!`",
    "\ufffd": "?",
}  # fmt: skip
