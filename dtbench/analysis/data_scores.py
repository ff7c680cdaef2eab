"""What the data and the policy that recorded them score, beside which every contender is read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd

TOLERANCE = 1e-6  # of a score's size, by which a score may miss the line of scores over returns


@dataclass(frozen=True, slots=True)
class DataScores:
    """The scores of a dataset's episodes and of the best policy that recorded it, in points of the task."""

    mean: float
    best: float
    with_noise: float | None = None  # of the policy, which explores; None: nobody measured it
    without_noise: float | None = None


def data_scores(
    provenance: Mapping[str, Mapping[str, Any]], scores: pd.DataFrame, averages: Mapping[str, Sequence[str]]
) -> dict[str, DataScores]:
    """Return what each task's data score, and their means for `averages` whose tasks all have them.

    An archive keeps the returns of its data, not their scores: these lie on the line through the scores and returns
    of what was evaluated. A task whose scores are no such line, or that saw one return only, has none.
    """
    found = {}
    for task, facts in provenance.items():
        dataset = facts.get("dataset") or {}
        card = dataset.get("card") or {}
        mean, best = card.get("return_mean"), card.get("return_max")
        if mean is not None and best is not None and (line := _line(scores[scores["task"] == task])):
            returns = (mean, best, *_policy_returns(dataset.get("info") or {}))
            found[task] = DataScores(*(None if r is None else line[0] + line[1] * r for r in returns))  # type: ignore[arg-type]
    return found | dict(_averages(found, averages))


def _policy_returns(info: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the mean returns of the best recording policy with its noise and without."""
    measured = [one for one in info.get("policy_returns") or () if {"with_noise", "without_noise"} <= set(one)]
    if not measured:
        return None, None
    best = max(measured, key=lambda one: float(one["with_noise"]))
    return float(best["with_noise"]), float(best["without_noise"])


def _line(rows: pd.DataFrame) -> tuple[float, float] | None:
    known = rows[["return_mean", "score"]].dropna().drop_duplicates().to_numpy(np.float64)
    if len(known) < 2 or known[:, 0].min() == known[:, 0].max():
        return None
    low, high = known[known[:, 0].argmin()], known[known[:, 0].argmax()]
    rise = (high[1] - low[1]) / (high[0] - low[0])
    missed = np.abs(low[1] + rise * (known[:, 0] - low[0]) - known[:, 1])
    straight = bool((missed <= TOLERANCE * (1 + np.abs(known[:, 1]))).all())
    return (float(low[1] - rise * low[0]), float(rise)) if straight else None


def _averages(
    found: Mapping[str, DataScores], averages: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, DataScores]]:
    for name, over in averages.items():
        if over and all(task in found for task in over):
            parts = [astuple(found[task]) for task in over]
            yield name, DataScores(*(None if None in one else float(np.mean(one)) for one in zip(*parts, strict=True)))  # type: ignore[arg-type]
