"""Trials as runs of a tracker: a name, a configuration, and scalars by step."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialSpec

Scalars = Mapping[str, float]
MEASURES = ("score", "return", "achieved", "length")  # columns of episodes whose means are logged


@dataclass(frozen=True, slots=True)
class Run:
    """One trial."""

    spec: TrialSpec
    points: Sequence[tuple[int, Scalars]]  # by gradient step, ascending

    @property
    def name(self) -> str:
        """Return contender, task and seed."""
        return f"{self.spec.contender}/{self.spec.task}/seed{self.spec.seed}"


def run_of(record: TrialRecord) -> Run:
    """Return a finished trial with all that it logged and the means of its evaluations."""
    points: dict[int, dict[str, float]] = {}
    for row in record.metrics().to_dict("records"):
        points.setdefault(int(row["step"]), {}).update(training_scalars(row))
    for step, episodes in record.episodes().groupby("step"):
        scalars = evaluation_scalars(episodes, record.spec.evaluation.targets)
        points.setdefault(int(step), {}).update(scalars)
    return Run(record.spec, sorted(points.items()))


def training_scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a row of metrics as training/<name>."""
    return {f"training/{name}": value for name, value in _finite(row.items()).items() if name != "step"}


def evaluation_scalars(episodes: pd.DataFrame, targets: Sequence[float]) -> dict[str, float]:
    """Return the means of one evaluation: evaluation/score, .../return, ..., and .../target_<target> of each target.

    The first are those of the first of `targets` that was evaluated, or of all episodes without target returns.
    """
    measured = [name for name in MEASURES if name in episodes]
    means = episodes.groupby("target", dropna=True)[measured].mean()
    first = next((target for target in targets if target in means.index), None)
    whole = episodes[measured].mean() if first is None else means.loc[first]
    found: dict[str, Any] = {f"evaluation/{name}": whole[name] for name in measured}
    for target, row in means.iterrows():
        found |= {f"evaluation/{name}/target_{target:g}": row[name] for name in measured}
    return _finite(found.items())


def config_of(spec: TrialSpec) -> dict[str, Any]:
    """Return what identifies a trial and all of its hyperparameters, as plain JSON values."""
    names = ("suite", "contender", "task", "seed", "algorithm", "train_steps", "dataset_source", "dataset_digest")
    return {
        "trial": spec.key,
        **{name: getattr(spec, name) for name in names},
        "task_options": dict(spec.task_options),
        "hyperparameters": dict(spec.hyperparameters),
    }


def flat_config(spec: TrialSpec) -> dict[str, bool | float | str]:
    """Return `config_of` with names such as hyperparameters.dropout; lists and None become JSON text."""
    flat: dict[str, bool | float | str] = {}
    for name, value in config_of(spec).items():
        values = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        flat |= {
            key: one if isinstance(one, bool | int | float | str) else json.dumps(one) for key, one in values.items()
        }
    return flat


def _finite(values: Iterable[tuple[str, Any]]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values if value is not None}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
