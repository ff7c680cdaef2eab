"""The card of a dataset as a picture: how its returns and the lengths of its episodes are spread."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from dtbench import shipped
from dtbench.data.trajectories import TrajectoryDataset

BINS = 40


def write_card(dataset: TrajectoryDataset, name: str, folder: Path) -> list[Path]:
    """Write <name>.svg and <name>.png into the folder; equal data give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    with _style():
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
    figure = Figure(figsize=(7.2, 3.0))
    left, right = figure.subplots(1, 2)
    source = dataset.info.get("source", "unknown")
    returns = dataset.returns
    left.hist(returns, bins=BINS, color="#0072B2")
    left.axvline(float(returns.mean()), color="#D55E00", label=f"mean {returns.mean():.1f}")
    left.axvline(float(returns.max()), color="#009E73", linestyle=":", label=f"best {returns.max():.1f}")
    left.set(xlabel="return of an episode", ylabel="episodes", title=f"{dataset.num_episodes} episodes")
    left.legend(fontsize=8)
    lengths = dataset.lengths
    terminal = np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    right.hist([lengths[terminal], lengths[~terminal]], bins=BINS, stacked=True, label=["ended", "cut off"])
    right.set(xlabel="steps of an episode", ylabel="episodes", title=f"{dataset.num_steps} steps")
    right.legend(fontsize=8)
    figure.suptitle(f"{name}, data: {source}")
    figure.supxlabel(f"sha256 {dataset.digest}", fontsize=6)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """The project's style, whatever the user's matplotlibrc says: as in figures.py."""
    style = mpl.rc_params_from_file(shipped.find("report", "dtbench.mplstyle"), use_default_template=False)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        yield
