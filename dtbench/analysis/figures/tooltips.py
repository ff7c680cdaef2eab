"""Points that explain themselves: a page shows a point's sentence where a reader hovers over it or reaches it by key.

A figure's module calls `draw_points` or `explain` while it draws; the labels wait in the artist's id until
`collect_marks` turns them into the Marks of a Drawing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from dtbench.analysis.statistics import Interval
from dtbench.analysis.tables.table import MINUS

_WAITING = "explained:"
_SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class Marks:
    """Points that a page can explain: the SVG group of this id has one drawn child a label, in order."""

    gid: str
    labels: tuple[str, ...]


def explain(artist: Line2D | Rectangle, labels: Sequence[str]) -> None:
    """Give an artist its sentences: one a marker, or a single one for a bar or a line without markers."""
    artist.set_gid(_WAITING + _SEPARATOR.join(" ".join(label.split()) for label in labels))


def draw_points(axes: Axes, x: ArrayLike, y: ArrayLike, labels: Sequence[str], **look: Any) -> None:
    """Draw markers, each with its sentence; points that are nan or lie outside the axes are left out with theirs."""
    (points,) = axes.plot(x, y, **{"linestyle": "none", **look})
    explain(points, labels)


def collect_marks(sheet: Figure, name: str) -> tuple[Marks, ...]:
    """Name the groups of all that was explained, once the figure is laid out; drop what will not be seen."""
    found: list[Marks] = []
    for artist in _explained(sheet):
        labels = str(artist.get_gid())[len(_WAITING) :].split(_SEPARATOR)
        visible = _visible(artist) if isinstance(artist, Line2D) and artist.get_linestyle() == "None" else None
        shown = [label for label, seen in zip(labels, visible, strict=True) if seen] if visible is not None else labels
        artist.set_gid(f"{name}-marks-{len(found) + 1}" if shown else None)
        if shown:
            found.append(Marks(f"{name}-marks-{len(found) + 1}", tuple(shown)))
    return tuple(found)


def sentence(
    subject: str, value: float, interval: Interval | None = None, *, seeds: Sequence[float] = (), episodes: int = 0
) -> str:
    """Return what a point says: subject, value, interval, how many seeds and episodes, and each seed's own value."""
    text = f"{subject}: {compact(value)}"
    if interval:
        text += f" [{compact(interval.low)}, {compact(interval.high)}], 95 %"
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    if seeds:
        text += f", n = {count} x {episodes} episodes" if episodes else f", n = {count}"
    return f"{text}; seeds: {', '.join(map(compact, seeds))}" if len(seeds) > 1 else text


def compact(value: float) -> str:
    """Return a number as a reader wants to hear it: three to four digits, no exponent."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinity"
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", MINUS) if text != "-0" else "0"


def _explained(sheet: Figure) -> Iterator[Artist]:
    yield from sheet.findobj(lambda artist: str(artist.get_gid() or "").startswith(_WAITING))


def _visible(points: Line2D) -> list[bool]:
    """Return which markers are drawn, and remove the others, because backends differ in what they leave out."""
    data = np.asarray(points.get_xydata(), np.float64)
    seen = np.asarray(np.isfinite(data).all(axis=1))
    if points.get_clip_on() and points.axes is not None:
        box = points.axes.bbox.padded(0.5)
        places = points.get_transform().transform(data)
        seen = seen & (places >= box.min).all(axis=1) & (places <= box.max).all(axis=1)
    points.set_data(data[seen, 0], data[seen, 1])
    return [bool(one) for one in seen]
