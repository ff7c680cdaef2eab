"""The figures inside a page, as they are drawn there."""

import json
import re

from dtbench.analysis.page import html


def drawn_figures(page: str) -> dict[str, str]:
    """Return the SVG of each figure by its name; of equal names in several suites the last one."""
    inline = re.findall(r'<figure data-figure="([^"]*)"[^>]*>\s*<div[^>]*>(<svg.*?</svg>)', page, flags=re.DOTALL)
    blobs = re.findall(r'<script type="[^"]*" id="figures-[^"]*">([^<]*)<', page)
    packed = {prefix: svg for blob in blobs for prefix, svg in json.loads(html.unpack(blob)).items()}
    waiting = re.findall(r'<figure data-figure="([^"]*)"[^>]*>\s*<div[^>]* data-packed="([^"]*)"', page)
    assert {prefix for _, prefix in waiting} == packed.keys()
    return {**dict(inline), **{name: packed[prefix] for name, prefix in waiting}}
