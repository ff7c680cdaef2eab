"""The page as one self-contained HTML file, and a suite as Markdown. Equal documents give equal bytes."""

import base64
import gzip
import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from dtbench.analysis.figures.style import INK, Drawing
from dtbench.analysis.groups import ANSWERING, GROUPS
from dtbench.analysis.page.prose import prose_html, prose_markdown
from dtbench.analysis.page.section import Section
from dtbench.analysis.tables.table import Table, escape_markdown

LONG_HEADING = 32  # characters of a row's heading that stay on one line
MANY_COLUMNS = 10  # of a table that would be wider than a page of 1440 pixels

SCRIPTS = ("page.js", "tables.js", "points.js", "trials.js", "start.js")  # one script, in this order


@dataclass(frozen=True, slots=True)
class SuitePage:
    """What the page says of one suite."""

    name: str
    title: str
    description: str
    facts: tuple[tuple[str, str], ...]  # what a reader wants to know first
    warning: str  # empty where the numbers mean something
    sections: tuple[Section, ...]
    trials: Mapping[str, Any]  # plain JSON: cells, trials, provenance
    group: str = "other"  # of GROUPS


@dataclass(frozen=True, slots=True)
class Document:
    """Everything on the page, not yet in any format."""

    title: str
    overview: tuple[Section, ...]
    suites: tuple[SuitePage, ...]


def render(document: Document) -> str:
    """Return one HTML file with its styles, script, figures and data; it requests no other."""
    script, theme = "\n".join(map(_file, SCRIPTS)), _file("theme.js")
    environment = SandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    links, shared = _suite_links(document.suites), frozenset(_shared_notes(document))
    environment.filters.update(table=partial(_table, suites=links, shared=shared), box=_box, prose=prose_html)
    known: dict[str, Any] = {
        "document": document,
        "style": Markup(_file("style.css")),
        "script": Markup(script),
        "theme": Markup(theme),
        "policy": _policy(theme, script),
        "trials": [pack(suite.trials) for suite in document.suites],
        "views": _views(document),
    }
    return environment.from_string(_file("page.html.j2")).render(**known)


def markdown(suite: SuitePage, *, figures: str = "figures") -> str:
    """Return a suite's part of the report as Markdown; `figures` is the directory of its figures."""
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(md=escape_markdown, prose=prose_markdown)
    return environment.from_string(_file("report.md.j2")).render(page=suite, figures=figures)


def unpacked(page: str) -> str:
    """Return the page with its packed data as plain JSON: equal wherever it was built, whatever zlib packed it."""
    return re.sub(rf"({_BLOB}[^>]*>)([\w+/=]*)", lambda found: found[1] + unpack(found[2]), page)


def pack(content: Any) -> str:
    """Return JSON, compressed, as text for a script element; nan and infinity become null."""
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def unpack(text: str) -> str:
    """Return the JSON that `pack` was given."""
    return gzip.decompress(base64.b64decode(text)).decode()


def inline_svg(drawing: Drawing, prefix: str) -> Markup:
    """Return an SVG element in the page's ink and font; only ids that are used stay, each with `prefix`."""
    text = drawing.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    used = {*re.findall(r'(?:href="#|url\(#)([^")]+)', text), *(mark.gid for mark in drawing.marks)}
    text = re.sub(r'\sid="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r' font-family: [^;"]*;?| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r'\b(?:d|x|y)="[^"]*"', _rounded, text)
    text = re.sub(r">\s+<", "><", text).replace(INK, "currentColor")
    label = Markup(' role="img" aria-label="{}"').format(drawing.alt)
    return Markup(text.replace("<svg", f"<svg{label}", 1).strip())


_BLOB = '<script type="application/octet-stream;base64"'
_VERDICT = re.compile(r"(<td[^>]*>)(agrees|differs|undecided|not comparable|not run|not in this suite)(: |(?=<))")


@dataclass(frozen=True, slots=True)
class _Figure:
    drawing: Drawing
    prefix: str  # of the ids inside its SVG
    svg: Markup | None  # None: packed, see `_View.figures`
    shape: str  # width / height


@dataclass(frozen=True, slots=True)
class _Block:
    """A section with its place in the page."""

    anchor: str
    section: Section
    figures: tuple[_Figure, ...]
    more: tuple[_Figure, ...]  # behind a line that opens


@dataclass(frozen=True, slots=True)
class _View:
    """The overview or one suite."""

    key: str
    anchor: str
    label: str  # in the list of suites
    suite: SuitePage | None
    blocks: tuple[_Block, ...]
    points: str  # the sentences of its figures' points, packed
    figures: str  # SVG by prefix, packed: as text they would be most of the page
    rules: tuple[str, ...]  # notes that several tables share
    aside: str  # the title of its group, where that does not answer the page's question


def _views(document: Document) -> list[_View]:
    views, shared = [], _shared_notes(document)
    for number, (key, suite) in enumerate(zip(_keys(document.suites), (None, *document.suites), strict=True)):
        sections = [one for one in (suite.sections if suite else document.overview) if one.in_page]
        anchor, label = (f"suite-{key}", suite.name) if suite else (key, "Overview")
        packed: dict[str, str] = {}
        blocks = tuple(_blocks(key, f"f{number}", sections, packed))
        aside = GROUPS[suite.group] if suite and suite.group not in ANSWERING else ""
        notes = {note for section in sections for table in section.tables for note in table.notes}
        rules = tuple(note for note in shared if note in notes)
        views.append(_View(key, anchor, label, suite, blocks, _points(sections), pack(packed), rules, aside))
    return views


def _shared_notes(document: Document) -> list[str]:
    """Return the notes that several tables have: a view says them once."""
    sections = [*document.overview, *(section for suite in document.suites for section in suite.sections)]
    notes = [note for section in sections if section.in_page for table in section.tables for note in table.notes]
    return [note for note in dict.fromkeys(notes) if notes.count(note) > 1]


def _keys(suites: Sequence[SuitePage]) -> list[str]:
    """Return what tells the overview, which comes first, and each suite apart in ids."""
    names = _Names()
    return [names.unlike(name) for name in ("overview", *(suite.name for suite in suites))]


def _blocks(key: str, figures: str, sections: Iterable[Section], packed: dict[str, str]) -> Iterator[_Block]:
    """Yield the sections of a view; the ids inside its figures begin like f3-0-, f3-1-, ... to be short.

    All figures but the headline's, which are seen without a script, go into `packed`.
    """
    anchors, numbers = _Names(), itertools.count()

    def figure(drawing: Drawing, *, inline: bool) -> _Figure:
        prefix = f"{figures}-{next(numbers)}-"
        svg = inline_svg(drawing, prefix)
        if not inline:
            packed[prefix] = str(svg)
        width, height = re.findall(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', svg)[0]
        return _Figure(drawing, prefix, svg if inline else None, f"{width} / {height}")

    for section in sections:
        drawn = tuple(figure(drawing, inline=section.headline is not None) for drawing in section.drawings)
        more = tuple(figure(drawing, inline=False) for drawing in section.more)
        yield _Block(f"{key}--{anchors.unlike(section.heading)}", section, drawn, more)


class _Names:
    """Names as they may stand in an id or address, no two alike and none with two dashes in a row."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def unlike(self, name: str) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "part"
        tries = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        chosen = next(text for text in tries if text not in self._given)
        self._given.add(chosen)
        return chosen


def _points(sections: Iterable[Section]) -> str:
    drawings = [drawing for section in sections for drawing in (*section.drawings, *section.more)]
    return pack({drawing.name: [[one.gid, list(one.labels)] for one in drawing.marks] for drawing in drawings})


def _suite_links(suites: Sequence[SuitePage]) -> dict[str, str]:
    """Map a link to a suite, as a table writes it, to the suite's anchor in the page."""
    names = _keys(suites)[1:]
    return {
        str(Markup('href="#suite-{}"').format(suite.name)): f'href="#suite-{key}"'
        for suite, key in zip(suites, names, strict=True)
    }


def _table(table: Table, key: str, suites: Mapping[str, str], shared: Collection[str]) -> Markup:
    """Return the table with ids of its own, links to suites that meet them, and its verdicts as badges."""
    table = replace(table, notes=tuple(note for note in table.notes if note not in shared))
    text = re.sub(r'(<table[^>]*?\sid=")', rf"\g<1>{key}--table--", str(table.html()), count=1)
    text = re.sub(r'href="#suite-[^"]*"', lambda found: suites.get(found[0], found[0]), text)
    text = _VERDICT.sub(_badge, text)
    return Markup(text)


def _box(table: Table) -> str:
    """Return the classes of the box around a table.

    Long row headings must break, or they would hide the rest; so must those of many columns, which stand closer.
    """
    longest = max((len(row[0].text) for row in table.rows), default=0)
    is_dense = sum(column.shown for column in table.columns) >= MANY_COLUMNS
    return f"table{' long' if longest > LONG_HEADING else ''}{' dense' if is_dense else ''}"


def _badge(found: re.Match[str]) -> str:
    badge = f'<span class="badge {found[2].replace(" ", "-")}">{found[2]}</span>'
    return f"{found[1]}{badge}{' ' if found[3] else ''}"


def _rounded(found: re.Match[str]) -> str:
    """Round coordinates to two decimals of a point of 1/72 inch."""
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", found[0])
    return re.sub(r"\s+", " ", text)


def _policy(*scripts: str) -> str:
    """Return a content security policy: nothing is fetched, and no script runs but these."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(name): _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def _file(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
