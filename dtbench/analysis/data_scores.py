"""What the data themselves score: the mean and the best episode, beside which every contender is read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

TOLERANCE = 1e-6  # of a score's size, by which a score may miss the line of scores over returns


@dataclass(frozen=True, slots=True)
class DataScores:
    """The scores of a dataset's episodes, in points of the task."""

    mean: float
    best: float


def data_scores(
    provenance: Mapping[str, Mapping[str, Any]], scores: pd.DataFrame, averages: Mapping[str, Sequence[str]]
) -> dict[str, DataScores]:
    """Return what each task's data score, and their means for `averages` whose tasks all have them.

    An archive keeps the returns of its data, not their scores: these lie on the line through the scores and returns
    of what was evaluated. A task whose scores are no such line, or that saw one return only, has none.
    """
    found = {}
    for task, facts in provenance.items():
        card = (facts.get("dataset") or {}).get("card") or {}
        mean, best = card.get("return_mean"), card.get("return_max")
        if mean is not None and best is not None and (line := _line(scores[scores["task"] == task])):
            found[task] = DataScores(line[0] + line[1] * mean, line[0] + line[1] * best)
    return found | dict(_averages(found, averages))


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
            parts = [found[task] for task in over]
            yield name, DataScores(*np.mean([(part.mean, part.best) for part in parts], axis=0).tolist())
