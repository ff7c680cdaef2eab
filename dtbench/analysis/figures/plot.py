"""`dtbench.plot`: a table of scores or of episodes on matplotlib's axes, for a notebook."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dtbench.analysis.figures import style
from dtbench.analysis.statistics import mean_interval
from dtbench.errors import InvalidValue, UnknownName

KINDS = ("targets", "progress")


def plot(table: pd.DataFrame, kind: str = "targets", *, ax: Axes | None = None) -> Axes:
    """Draw a table of `load_scores` or `Policy.evaluate` on `ax`, or on new axes; return them.

    "targets" is mean return over target return, at the last checkpoint; "progress" is mean score over gradient steps,
    at each trial's first target. A line a contender: the mean over training seeds, of `Policy.evaluate` over episodes,
    with its 95 % interval (Student's). Raises UnknownName for another kind, InvalidValue for a table of several tasks
    or without what is to be drawn.
    """
    if kind not in KINDS:
        raise UnknownName("kind of plot", kind, KINDS)
    if not isinstance(table, pd.DataFrame):
        raise InvalidValue(f"{type(table).__name__} cannot be drawn. {TABLES}")
    if "task" in table and table["task"].nunique() > 1:
        raise InvalidValue(f"the table has {table['task'].nunique()} tasks: keep one, scores[scores.task == NAME].")
    rows, x, y = _targets(table) if kind == "targets" else _progress(table)
    if rows.empty:
        raise InvalidValue(f"the table has nothing to draw as {kind}: no row has a {x}.")
    axes = plt.subplots()[1] if ax is None else ax
    names = list(dict.fromkeys(rows["contender"]))
    palette, shapes = style.colours(names), style.markers(names)
    for name in names:
        means = pd.DataFrame(_means(rows[rows["contender"] == name], x, y), columns=["x", "mean", "low", "high"])
        axes.plot(means.x, means["mean"], color=palette[name], marker=shapes[name], label=name or None)
        axes.fill_between(means.x, means.low, means.high, color=palette[name], alpha=0.2, lw=0)
    if kind == "targets":
        ends = [rows[x].min(), rows[x].max()]
        axes.plot(ends, ends, color=style.INK, linestyle=":", linewidth=1.2, label="achieved = target")
    title = str(table["task"].iloc[0]) if "task" in table else ""
    axes.set(xlabel="target return" if kind == "targets" else "gradient steps", ylabel=_LABELS[kind], title=title)
    axes.legend()
    return axes


TABLES = "Give the DataFrame of policy.evaluate([...]) or of dtbench.load_scores(results)."
_LABELS = {"targets": "achieved return", "progress": "score"}


def _targets(table: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
    """Return the rows to draw, of the last step of each trial, and the columns of x and y."""
    rows = table.assign(contender=table.get("contender", ""))
    if "step" in rows:
        rows = rows[rows["step"] == rows.groupby("trial")["step"].transform("max")]
    if "target" not in rows or not {"return", "return_mean"} & set(rows):
        raise InvalidValue(f"the table has no columns of target and return. {TABLES}")
    achieved = [name for name in ("achieved_mean", "achieved", "return_mean", "return") if name in rows]
    y = next((name for name in achieved if rows[name].notna().any()), "return")
    return rows.dropna(subset="target"), "target", y


def _progress(table: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
    if "step" not in table:
        raise InvalidValue(
            "progress is drawn of the scores of trials, which have steps: dtbench.load_scores(results)."
        )
    first = table.drop_duplicates(["trial", "step"])
    return first, "step", "score"


def _means(rows: pd.DataFrame, x: str, y: str) -> Iterator[tuple[float, float, float, float]]:
    """Yield x, mean, and the ends of its interval, which are the mean where there is none."""
    for value, own in rows.groupby(x):
        numbers = own[y].to_numpy(np.float64)
        mean, interval = float(numbers.mean()), mean_interval(numbers)
        yield float(value), mean, interval.low if interval else mean, interval.high if interval else mean
