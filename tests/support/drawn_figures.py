"""The figures inside a page, as they are drawn there."""

import re


def drawn_figures(page: str) -> dict[str, str]:
    """Return the SVG of each figure by its name; of equal names in several suites the last one."""
    found = re.findall(r'<figure data-figure="([^"]*)"[^>]*>.*?(<svg.*?</svg>)', page, flags=re.DOTALL)
    return dict(found)
