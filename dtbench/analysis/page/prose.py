"""Paragraphs as people write them: `backticks` around names of code, **double asterisks** around what is bold."""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from dtbench.analysis.tables.table import escape_markdown

_MARKS = re.compile(r"`([\w ./:*=,'()\[\]-]+)`|\*\*(?=\S)(.+?)(?<=\S)\*\*")


def prose_html(text: str) -> Markup:
    """Return a paragraph's text as HTML; all else than these two marks is escaped."""
    made = Markup("")
    for plain, code, bold in _parts(text):
        made += escape(plain)
        made += Markup("<code>{}</code>").format(code) if code else ""
        made += Markup("<strong>{}</strong>").format(prose_html(bold)) if bold else ""
    return made


def prose_markdown(text: str) -> str:
    """Return a paragraph's text as Markdown; all else than these two marks is escaped."""
    made = ""
    for plain, code, bold in _parts(text):
        made += _escaped(plain)
        made += f"`{code}`" if code else ""
        made += f"**{prose_markdown(bold)}**" if bold else ""
    return made


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield plain text with the code or the bold text that follows it, the other one empty; both are at the end."""
    place = 0
    for found in _MARKS.finditer(text):
        yield text[place : found.start()], found[1] or "", found[2] or ""
        place = found.end()
    yield text[place:], "", ""


def _escaped(part: str) -> str:
    """Return part of a paragraph with its spaces at both ends, which `escape_markdown` takes for a whole text's."""
    inner = part.strip()
    start = part.index(inner)
    return f"{part[:start]}{escape_markdown(inner)}{part[start + len(inner) :]}" if inner else part
