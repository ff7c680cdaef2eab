"""A task: one environment, one dataset, and what its scores mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dtbench.algorithm import Learner
from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import IncompatibleTask, InvalidValue, MissingDataset, UnknownName
from dtbench.evaluation import Episodes, TargetUnits

TargetReturns = tuple[float, ...]
AUTO = "auto"
MOST_STEPS = 100_000_000  # of data made here
TUNING_SHIFT = 10_000_000  # from the evaluation seeds that are reported on to those that searches play


def no_columns(episodes: Episodes, dataset: TrajectoryDataset) -> Mapping[str, NDArray[Any]]:
    """Nothing to add to the table of episodes."""
    return {}


def consecutive_seeds(episodes: int) -> list[int]:
    """Evaluation seeds, the same for every contender, far from those that make data."""
    return list(range(10_000_000, 10_000_000 + episodes))


@dataclass(frozen=True, slots=True)
class DataSource:
    """One place that a task's data may come from."""

    name: str  # "d4rl", "minari", "generated", ...
    load: Callable[[], TrajectoryDataset]  # from disk, or made here; MissingDataset where it is neither
    available: Callable[[], bool]  # whether `load` needs neither network nor long work
    fetch: Callable[[], None] | None = None  # download it; MissingDataset where that fails
    automatic: bool = True  # whether "auto" may choose it


@dataclass(frozen=True, slots=True)
class Task:
    """What a trial needs to know of a task, and what a report needs to say about it."""

    name: str
    domain: str
    load_dataset: Callable[[], TrajectoryDataset]  # opens the store, and fills it first where it can; needs no network
    make_env: Callable[[int], VectorEnv[Any, Any, Any]]  # number of games -> vector environment
    score: Callable[[Episodes], NDArray[np.float64]]  # on the domain's 0-100 scale, one for each episode
    score_name: str  # e.g. "success rate (%)"
    target_returns: TargetReturns  # what a return-conditioned policy is asked for, unless the suite says otherwise
    description: str = ""
    version: int = 1  # part of a trial's identity: raise it when the environment or the scoring changes
    evaluation_seeds: Callable[[int], list[int]] = consecutive_seeds  # number of episodes -> their seeds
    tune_on: str = ""  # where all that there is to play is reported on: what to tune on instead
    info_keys: tuple[str, ...] = ()  # what to keep of the environment's info at an episode's end
    columns: Callable[[Episodes, TrajectoryDataset], Mapping[str, NDArray[Any]]] = no_columns
    sources: tuple[DataSource, ...] = ()  # where its data may come from, the best first; (): `load_dataset` alone
    target_units: TargetUnits | None = (
        None  # of targets and of the data's returns; None: the environment's own rewards
    )
    targets_of: Callable[[TrajectoryDataset], TargetReturns] | None = (
        None  # targets that depend on the data, see `targets`
    )

    inspect: Callable[[Learner, TrajectoryDataset], Mapping[str, Any]] | None = (
        None  # what else to record of a learner that has finished, as plain JSON; {} where there is nothing to say
    )

    def targets(self, dataset: TrajectoryDataset) -> TargetReturns:
        """What a return-conditioned policy that learned from this data is asked for, in `target_units`."""
        return self.target_returns if self.targets_of is None else self.targets_of(dataset)

    def facts(self) -> dict[str, Any]:
        """Return what is recorded of the task beside each result, as plain JSON."""
        return {
            "name": self.name,
            "domain": self.domain,
            "version": self.version,
            "description": self.description,
            "score_name": self.score_name,
            **({"target_units": self.target_units.name} if self.target_units else {}),
        }

    def tuning_seeds(self, episodes: int) -> list[int]:
        """Seeds of the episodes that a search for hyperparameters plays: none of those that are reported on.

        Raises IncompatibleTask, with what to tune on instead, where a report plays all that there is.
        """
        if self.tune_on:
            raise IncompatibleTask(
                f"{self.name} is reported on all of its starts: none is left to tune on. {self.tune_on}"
            )
        return [seed + TUNING_SHIFT for seed in self.evaluation_seeds(episodes)]

    def open(self, source: str = AUTO) -> TrajectoryDataset:
        """The task's data from the named source; "auto": see `resolve`. Raises UnknownName for other names.

        A task without `sources` has one way to its data, which "auto" and that data's own name both mean.
        """
        if self.sources:
            named = {found.name: found for found in self.sources}
            name = self.resolve(source)
            if name not in named:
                raise UnknownName(f"source of {self.name}", source, [AUTO, *named])
            return named[name].load()
        dataset = self.load_dataset()
        if source not in (AUTO, own := str(dataset.info.get("source", "unknown"))):
            raise UnknownName(f"source of {self.name}", source, [AUTO, own])
        return dataset

    def resolve(self, source: str = AUTO, *, fetch: bool = True) -> str:
        """The source that "auto" stands for: real data on disk, else what can be downloaded, else the last one.

        With `fetch` the download is tried, in the order of `sources`. Other names stay as they are.
        """
        if source != AUTO or not self.sources:
            return source
        *others, last = self.sources
        real = [found for found in others if found.automatic]
        for found in real:
            if found.available():
                return found.name
        for found in real:
            if fetch and found.fetch is not None and _fetched(found):
                return found.name
        return last.name


def check_seed(seed: Any) -> None:
    """Raise InvalidValue for a seed that numpy's generators do not take."""
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise InvalidValue(f"seed {seed!r:.40} must be a whole number from 0 to {2**31 - 1}.")


def _fetched(source: DataSource) -> bool:
    assert source.fetch is not None
    try:
        source.fetch()
    except MissingDataset:
        return False
    return source.available()


def normalize(returns: NDArray[np.float64], *, low: float, high: float) -> NDArray[np.float64]:
    """100 (return - low) / (high - low): 0 for the reference `low`, 100 for `high` (Fu et al. 2020, section 5)."""
    return 100 * (returns - low) / (high - low)
