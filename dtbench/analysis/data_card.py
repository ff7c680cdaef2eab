"""The card of a dataset as a picture: how its returns and the lengths of its episodes are spread."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure

from dtbench.analysis.figures.style import style
from dtbench.data.trajectories import TrajectoryDataset

BINS = 40
STRIP = 8  # frames of the best episode


def write_card(dataset: TrajectoryDataset, name: str, folder: Path) -> list[Path]:
    """Write <name>.svg and <name>.png into the folder; equal data give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    with style():
        figure = _drawn(dataset, name)
        paths = []
        for kind, nothing in (
            ("svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))),
            ("png", {"Software": None}),
        ):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=nothing, facecolor="white")
            path = folder / f"{stem}.{kind}"
            path.write_bytes(content.getvalue())
            paths.append(path)
    return paths


def _drawn(dataset: TrajectoryDataset, name: str) -> Figure:
    if dataset.frame_stack > 1 and dataset.observations.ndim == 3:
        figure = Figure(figsize=(7.2, 4.3))
        grid = figure.add_gridspec(2, 1, height_ratios=(1.3, 3.0))
        _draw_strip(dataset, figure.add_subfigure(grid[0]))
        left, right = figure.add_subfigure(grid[1]).subplots(1, 2)
    else:
        figure = Figure(figsize=(7.2, 3.0))
        left, right = figure.subplots(1, 2)
    source = dataset.info.get("source", "unknown")
    returns = dataset.returns
    left.hist(returns, bins=BINS, color="#0072B2")
    left.axvline(float(returns.mean()), color="#D55E00", label=f"mean {returns.mean():.1f}")
    left.axvline(float(returns.max()), color="#009E73", linestyle=":", label=f"best {returns.max():.1f}")
    clipped = ", rewards clipped" if "raw_rewards" in dataset.extras else ""
    left.set(xlabel=f"return of an episode{clipped}", ylabel="episodes", title=f"{dataset.num_episodes} episodes")
    left.legend(fontsize=8)
    lengths = dataset.lengths
    terminal = np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    right.hist([lengths[terminal], lengths[~terminal]], bins=BINS, stacked=True, label=["ended", "cut off"])
    right.set(xlabel="steps of an episode", ylabel="episodes", title=f"{dataset.num_steps} steps")
    right.legend(fontsize=8)
    figure.suptitle(f"{name}, data: {source}")
    figure.supxlabel(f"sha256 {dataset.digest}", fontsize=6)
    return figure


def _draw_strip(dataset: TrajectoryDataset, figure: SubFigure) -> None:
    """Frames of the best episode, evenly spread between its begin and its end."""
    best = int(dataset.returns.argmax())
    begin, end = dataset.offsets[best : best + 2]
    steps = np.linspace(begin, end, STRIP + 2)[1:-1].astype(int)
    for axes, step in zip(figure.subplots(1, STRIP), steps, strict=True):
        axes.imshow(dataset.observations[step], cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(f"step {step - begin}", fontsize=6, fontweight="normal", loc="center")
