"""Paragraphs as people write them: `backticks` around names of code, **double asterisks** around what is bold."""

import re

from markupsafe import Markup, escape

from dtbench.analysis.tables.table import escape_markdown

_MARKS = re.compile(r"`([\w ./:*=,'()\[\]-]+)`|\*\*(?=\S)(.+?)(?<=\S)\*\*")


def prose_html(text: str) -> Markup:
    """Return a paragraph's text as HTML; all else than these two marks is escaped."""
    made, place = Markup(""), 0
    for found in _MARKS.finditer(text):
        code, bold = found.groups()
        marked = (
            Markup("<strong>{}</strong>").format(prose_html(bold)) if bold else Markup("<code>{}</code>").format(code)
        )
        made += escape(text[place : found.start()]) + marked
        place = found.end()
    return made + escape(text[place:])


def prose_markdown(text: str) -> str:
    """Return a paragraph's text as Markdown; all else than these two marks is escaped."""
    made, place = "", 0
    for found in _MARKS.finditer(text):
        code, bold = found.groups()
        marked = f"**{prose_markdown(bold)}**" if bold else f"`{code}`"
        made += _escaped(text[place : found.start()]) + marked
        place = found.end()
    return made + _escaped(text[place:])


def _escaped(part: str) -> str:
    """Return part of a paragraph with its spaces at both ends, which `escape_markdown` takes for a whole text's."""
    inner = part.strip()
    start = part.index(inner)
    return f"{part[:start]}{escape_markdown(inner)}{part[start + len(inner) :]}" if inner else part
