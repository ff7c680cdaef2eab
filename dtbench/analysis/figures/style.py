"""The one look of all figures, and the way from a figure to SVG, PNG and PDF: equal results, equal bytes."""

import hashlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dtbench.analysis.figures.tooltips import Marks, collect_marks
from dtbench.analysis.suite_analysis import SuiteAnalysis

INK = "#1b1f24"  # as in dtbench.mplstyle
WALKS = "#b9bfc7"

# From Okabe & Ito (2008) and Tol's schemes, chosen so that those who meet in a shipped suite are distinguished by the
# colour-blind (tests/analysis/test_palette.py) and seen on white and on black; a marker of its own goes with each.
_BY_NAME = {
    "DT": ("#0072B2", "o"),
    "CQL": ("#D55E00", "D"),
    "BC": ("#CCBB44", "s"),
    "BC 10%": ("#994455", "^"),
    "BC 25%": ("#5AAE61", "v"),
    "BC 40%": ("#EE99AA", "P"),
    "BC 100%": ("#CCBB44", "s"),  # is BC
    "BC successful": ("#66CCEE", ">"),
    "CQL history": ("#5AAE61", "<"),
    "IQL": ("#66CCEE", "P"),
    "TD3+BC": ("#44AA99", "v"),
    "ReBRAC": ("#BB11FF", "h"),
    "RvS-R": ("#99CC88", "d"),
    "QR-DQN": ("#CC6677", "v"),
    "REM": ("#33BBEE", "^"),
    "Random": ("#8a8f98", "X"),
    "DT predicting returns": ("#7744CC", "p"),
    "DT sampled": ("#66CCEE", "p"),
    "DT K=1": ("#66CCEE", "v"),
    "DT K=5": ("#994455", "^"),
    "DT by timestep": ("#E69F00", "s"),
    "DT by timestep, longer": ("#66CCEE", "^"),
    "DT 3 steps": ("#BB5566", "v"),
    "CQL penalty 0.1": ("#CC3311", "P"),
    "CQL history, penalty 0.1": ("#DDCC77", "<"),
}
PALETTE = ("#0072B2", "#D55E00", "#CCBB44", "#994455", "#5AAE61", "#66CCEE", "#EE99AA", "#44AA99", "#AA4499")
MARKERS = "osD^vPX<>phd*"


def colours(contenders: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name: the same in every figure, unless two names of a suite fall on one colour."""
    return _chosen(contenders, {name: colour for name, (colour, _) in _BY_NAME.items()}, PALETTE)


def markers(contenders: Sequence[str]) -> dict[str, str]:
    """Return a marker for each name, by the same rule."""
    return _chosen(contenders, {name: marker for name, (_, marker) in _BY_NAME.items()}, MARKERS)


def _chosen(names: Sequence[str], fixed: Mapping[str, str], pool: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name in names:
        if name in fixed and fixed[name] not in chosen.values():
            chosen[name] = fixed[name]
    for name in names:
        if name not in chosen:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(pool)
            ring = [*pool[first:], *pool[:first]]
            chosen[name] = next((one for one in ring if one not in chosen.values()), ring[0])
    return chosen


PANEL_TITLE = 40  # characters that fit in one line above one panel of a grid
_LETTER, _HANDLE = 0.068, 0.5  # inches that a legend's letter and its handle take
_LONGEST_NAME = 40  # characters of a name in a legend or beside an axis


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure, drawn."""

    name: str  # of its files
    caption: str
    alt: str  # what it shows, for those who cannot see it
    svg: bytes = field(repr=False)
    png: bytes = field(repr=False)
    sheet: Figure | None = field(repr=False, compare=False)  # None in a page: it is large, and only `pdf` needs it
    wide: bool = False  # takes the whole width of the page
    marks: tuple[Marks, ...] = field(default=(), repr=False)  # what a page can explain in the SVG

    def pdf(self) -> bytes:
        """Return the figure as a vector file for LaTeX, its fonts embedded."""
        assert self.sheet is not None
        content = io.BytesIO()
        with style():
            metadata = dict.fromkeys(("CreationDate", "Creator", "Producer"))  # dates would change the bytes
            FigureCanvasPdf(self.sheet).print_pdf(content, metadata=metadata)  # type: ignore[no-untyped-call]
        return content.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's style, whatever the user's matplotlibrc says."""
    found = mpl.rc_params_from_file(Path(__file__).with_name("dtbench.mplstyle"), use_default_template=False)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(found)
        yield


@contextmanager
def figure(smoke: bool, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of so many inches; draw it and hand it to drawing() inside the context."""
    with style():
        sheet = Figure(figsize=(width, height))
        if smoke:
            mark: dict[str, Any] = {"fontsize": 26, "color": "#c8102e", "alpha": 0.35, "weight": "bold"}
            sheet.text(0.45, 0.5, "SMOKE: numbers\nmean nothing", ha="center", va="center", rotation=20, **mark)
        yield sheet


@contextmanager
def panels(analysis: SuiteAnalysis, tasks: Sequence[str], *, below: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure with a titled panel for each task, and a label below the last panel of each column."""
    columns = min(len(tasks), 4 if len(tasks) in (4, 7, 8) or len(tasks) > 10 else 3)
    rows = math.ceil(len(tasks) / columns)
    with figure(analysis.smoke, 0.4 + 3.3 * columns, 1.0 + 2.4 * rows) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).flat
        found = [next(grid) for _ in tasks]
        for axes in grid:
            axes.set_axis_off()
        for axes, task in zip(found, tasks, strict=True):
            source = analysis.source(task)
            axes.set_title(wrapped(f"{task} ({source})" if source else task, PANEL_TITLE), fontsize=8)
        for axes in found[-columns:]:
            axes.set_xlabel(below)
        yield sheet, found


def drawing(sheet: Figure, name: str, caption: str, alt: str, *, wide: bool = False) -> Drawing:
    """Return the figure as SVG and PNG, laid out once."""
    plain = re.sub(r"[^\w.-]+", "-", name)  # tasks such as atari:pong; a file or an id may be without their marks
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name in letters that the font has not
        sheet.draw_without_rendering()
        sheet.set_layout_engine("none")
        marks = collect_marks(sheet, plain)
        return Drawing(plain, caption, alt, *_saved(sheet), sheet, wide, marks)


def legend_below(sheet: Figure, *, columns: int = 8, first: Sequence[str] = ()) -> None:
    """Add one legend below all axes, each label once, those of `first` leading; fewer columns if few fit."""
    found: dict[str, Artist] = {}
    for axes in sheet.axes:
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if not found:
        return
    leading = [label for label in map(legend_name, first) if label in found]
    labels = [*leading, *(label for label in found if label not in leading)]
    fit = int(sheet.get_figwidth() / (_HANDLE + _LETTER * max(map(len, labels))))
    rows = math.ceil(len(labels) / max(1, min(fit, columns)))
    even = math.ceil(len(labels) / rows)
    sheet.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=even)


def legend_name(name: str, width: int = _LONGEST_NAME) -> str:
    """Return a name as a label of a legend: short enough, and not one that matplotlib would hide."""
    text = shortened(name, width)
    return f" {text}" if text.startswith("_") else text


def shortened(text: str, width: int) -> str:
    """Return the text in one line of at most `width` characters; of a longer one both ends stay."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= width:
        return line
    tail = (width - 1) // 3
    return f"{line[: width - 1 - tail]}…{line[len(line) - tail :]}"


def wrapped(text: str, width: int, *, lines: int = 2) -> str:
    """Return the text in at most so many lines of `width` characters."""
    return "\n".join(textwrap.wrap(shortened(text, int(0.8 * width * lines)), width)[:lines])


def mark_targets(axes: Axes, targets: Sequence[float]) -> None:
    """Draw triangles below the axes at targets that were set beforehand."""
    look: dict[str, Any] = {"color": INK, "clip_on": False, "markersize": 6, "zorder": 4, "label": "fixed targets"}
    axes.plot(targets, [0.0] * len(targets), "^", transform=axes.get_xaxis_transform(), **look)


def thousands(*axes: Axis) -> None:
    """Write ticks as 20k or 3M where an axis goes beyond 10 000."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(_ThousandsOf(axis)))


@dataclass(frozen=True)
class _ThousandsOf:
    axis: Axis

    def __call__(self, value: float, _: int | None = None) -> str:
        ends = self.axis.get_view_interval()
        largest = max(abs(float(end)) for end in ends)
        unit, sign = (1e6, "M") if largest >= 1e7 else (1e3, "k") if largest >= 1e4 else (1.0, "")
        text = f"{round(value / unit, 9):g}"
        return f"{text}{sign if value else ''}".replace("-", "\N{MINUS SIGN}")


def _saved(sheet: Figure) -> tuple[bytes, bytes]:
    """Return SVG and PNG; Figure.savefig would lay out the figure again for each."""
    svg, png = io.BytesIO(), io.BytesIO()
    dpi = sheet.dpi  # the vector format leaves 72 behind
    # Dates and versions would change the bytes.
    FigureCanvasSVG(sheet).print_svg(svg, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))  # type: ignore[no-untyped-call]
    sheet.dpi = dpi
    sheet.set_facecolor("white")
    FigureCanvasAgg(sheet).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return svg.getvalue(), png.getvalue()
