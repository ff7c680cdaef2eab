"""`dtbench.plot`: tables of scores and of episodes on axes."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import dtbench
from dtbench.errors import InvalidValue, UnknownName

mpl.use("Agg")
import matplotlib.pyplot as plt

ROWS = [  # two seeds of DT at two steps and two targets, one of BC
    *(("DT", f"dt{s}", step, target, step + s) for s in (0, 2) for step in (10, 20) for target in (1.0, 2.0)),
    *(("BC", "bc0", step, np.nan, step) for step in (10, 20)),
]
SCORES = pd.DataFrame(ROWS, columns=["contender", "trial", "step", "target", "score"]).assign(task="hopper")
SCORES["return_mean"] = SCORES["score"] * SCORES["target"].fillna(1)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def lines(axes: plt.Axes) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for line in axes.get_lines():
        x, y = (np.asarray(values, float).tolist() for values in line.get_data())
        found[str(line.get_label())] = list(zip(x, y, strict=True))
    return found


def test_targets_are_drawn_of_the_last_checkpoint_on_given_axes() -> None:
    axes = plt.subplots()[1]
    assert dtbench.plot(SCORES, ax=axes) is axes
    assert lines(axes) == {"DT": [(1, 21), (2, 42)], "achieved = target": [(1, 1), (2, 2)]}
    assert (axes.get_title(), axes.get_xlabel()) == ("hopper", "target return")


def test_progress_is_drawn_of_the_first_target() -> None:
    axes = dtbench.plot(SCORES, "progress")
    assert lines(axes) == {"DT": [(10, 11), (20, 21)], "BC": [(10, 10), (20, 20)]}


def test_the_band_is_students_interval() -> None:
    axes = dtbench.plot(SCORES[SCORES.contender == "DT"], "progress")
    low = axes.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(11 - 12.7062, abs=1e-3)  # t(1 degree, 97.5 %) times sqrt(2) / sqrt(2)


def test_episodes_of_a_policy_are_drawn_too() -> None:
    episodes = pd.DataFrame({"target": [1.0, 1.0, 2.0, 2.0], "return": [1.0, 3.0, 4.0, 4.0]})
    curve = next(iter(lines(dtbench.plot(episodes)).values()))
    assert curve == [(1, 2), (2, 4)]


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match="targets"):
        dtbench.plot(SCORES, "bars")
    with pytest.raises(InvalidValue, match="2 tasks: keep one"):
        dtbench.plot(pd.concat([SCORES, SCORES.assign(task="walker")]))
    with pytest.raises(InvalidValue, match="no row has a target"):
        dtbench.plot(SCORES[SCORES.contender == "BC"])
    for table in (3, pd.DataFrame(), pd.DataFrame({"target": [1.0]})):
        with pytest.raises(InvalidValue, match=r"policy\.evaluate"):
            dtbench.plot(table)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="load_scores"):
        dtbench.plot(pd.DataFrame({"target": [1.0], "return": [1.0]}), "progress")
