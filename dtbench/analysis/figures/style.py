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
from types import MappingProxyType
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

# A hue for each family of algorithms, chosen so that those who meet in a shipped suite are distinguished by the
# colour-blind and no two contenders of any suites share a colour (tests/analysis/test_palette.py); seen on white and
# on black. A marker of its own goes with each.
_BY_NAME = {
    # Decision Transformer: blue and violet
    "DT": ("#0072B2", "o"),
    "DT predicting returns": ("#5451E6", "p"),
    "DT sampled": ("#8302DC", "P"),
    "DT K=1": ("#CDA2D5", "v"),
    "DT K=5": ("#4461DF", "^"),
    "DT by timestep": ("#A6AEE3", "s"),
    "DT by timestep, longer": ("#A462FB", "^"),
    "DT 3 steps": ("#6728FB", "v"),
    "DT bf16": ("#A743F6", "X"),
    "DT tuned": ("#2C5FA7", "h"),
    "DT averaged": ("#0B37EF", "X"),
    "DT last weights": ("#306F80", "X"),
    # imitation: yellow and green
    "BC": ("#CCBB44", "s"),
    "BC 100%": ("#CCBB44", "s"),  # is BC
    "BC 10%": ("#1C8952", "^"),
    "BC 25%": ("#96D0B7", "v"),
    "BC 40%": ("#B1D080", "P"),
    "BC successful": ("#4ED080", ">"),
    "RLlib BC": ("#7AD1C2", "d"),
    "RLlib MARWIL": ("#BACE8E", "p"),
    # TD learning: red and orange
    "CQL": ("#D55E00", "D"),
    "IQL": ("#A02F0D", "P"),
    "TD3+BC": ("#E4A5B1", "v"),
    "ReBRAC": ("#FCB686", "h"),
    "TD3+BC averaged": ("#E43C66", "<"),
    "IQL averaged": ("#BE7C40", "s"),
    "ReBRAC averaged": ("#EDA64F", "d"),
    "QR-DQN": ("#C24B41", "v"),
    "REM": ("#E0557D", "^"),
    "CQL history": ("#BE0829", "<"),
    "CQL history by timestep": ("#F3B499", "P"),
    "CQL history last weights": ("#F7A42D", "d"),
    "CQL history, penalty 1": ("#B87264", ">"),
    "RLlib CQL": ("#B35D81", "X"),
    "RLlib IQL": ("#B96A59", "h"),
    # others: grey
    "Random": ("#8A8F98", "X"),
    "RvS-R": ("#5A5A66", "d"),
}
_POOLS = {  # for names that are not listed, by family
    "dt": ("#2062E0", "#7228D6", "#73BEED", "#9B78FA"),
    "imitation": ("#1F683E", "#85CA74", "#C5CC0B", "#675F2E"),
    "td": ("#A03104", "#DD568A", "#D38758", "#9C315B"),
    "other": ("#6B7F8C", "#A8A29A", "#4F5B57", "#B4B4C4"),
}
PALETTE = tuple(colour for pool in _POOLS.values() for colour in pool)
MARKERS = "osD^vPX<>phd*"


def colours(contenders: Sequence[str], families: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return a colour for each name, the same in every figure, unless two names of a suite fall on one colour.

    A name that is not listed has the hue of its family; without one, any.
    """
    fixed = {name: colour for name, (colour, _) in _BY_NAME.items()}
    pools = {name: _POOLS[families[name]] for name in contenders if name in families}
    return _chosen(contenders, fixed, PALETTE, pools)


def markers(contenders: Sequence[str]) -> dict[str, str]:
    """Return a marker for each name, by the same rule."""
    return _chosen(contenders, {name: marker for name, (_, marker) in _BY_NAME.items()}, MARKERS, {})


def _chosen(
    names: Sequence[str], fixed: Mapping[str, str], every: Sequence[str], pools: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name in names:
        if name in fixed and fixed[name] not in chosen.values():
            chosen[name] = fixed[name]
    for name in names:
        if name not in chosen:
            pool = pools.get(name, every)
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(pool)
            ring = [*pool[first:], *pool[:first], *every]
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
    tight: bool = False  # shrinks to a phone's width

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


def drawing(sheet: Figure, name: str, caption: str, alt: str, *, wide: bool = False, tight: bool = False) -> Drawing:
    """Return the figure as SVG and PNG, laid out once."""
    plain = re.sub(r"[^\w.-]+", "-", name)  # tasks such as atari:pong; a file or an id may be without their marks
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name in letters that the font has not
        sheet.draw_without_rendering()
        sheet.set_layout_engine("none")
        marks = collect_marks(sheet, plain)
        return Drawing(plain, caption, alt, *_saved(sheet), sheet, wide, marks, tight)


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
