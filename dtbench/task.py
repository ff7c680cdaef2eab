"""Task: an environment, an offline dataset and a score."""

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
MOST_STEPS = 100_000_000  # of generated data
LONGEST_EPISODE = 10_000_000  # steps
TUNING_SHIFT = 10_000_000  # from the evaluation seeds of reports to those of searches


def no_columns(episodes: Episodes, dataset: TrajectoryDataset) -> Mapping[str, NDArray[Any]]:
    """Return no further columns for the table of episodes."""
    return {}


def consecutive_seeds(episodes: int) -> list[int]:
    """Return evaluation seeds, equal for every contender and distinct from those that generate data."""
    return list(range(10_000_000, 10_000_000 + episodes))


@dataclass(frozen=True, slots=True)
class DataSource:
    """A source of a task's data."""

    name: str  # "d4rl", "minari", "generated", ...
    load: Callable[[], TrajectoryDataset]  # read or generate it; MissingDataset where neither is possible
    available: Callable[[], bool]  # whether `load` returns quickly and without the network
    fetch: Callable[[], None] | None = None  # download it; MissingDataset where that fails
    automatic: bool = True  # whether "auto" may choose it


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """An environment, an offline dataset and a score."""

    name: str  # as suites name it
    domain: str  # the family of tasks, whose report sections it gets
    load_dataset: Callable[[], TrajectoryDataset]  # read it from the cache, or generate it; without the network
    make_env: Callable[[int], VectorEnv[Any, Any, Any]]  # number of environments -> vector environment
    score: Callable[[Episodes], NDArray[np.float64]]  # of each episode, on the domain's scale from 0 to 100
    score_name: str  # e.g. "success rate (%)"
    target_returns: TargetReturns  # of return-conditioned policies, by default
    description: str = ""  # a sentence: what is to be done, and what the data are
    version: int = 1  # part of a trial's identity: raise it when the environment or the scoring changes
    environment: str = ""  # digest of the environment's source, a part of a trial's identity; "": `version` alone
    evaluation_seeds: Callable[[int], list[int]] = consecutive_seeds  # number of episodes -> their seeds
    tune_on: str = ""  # what to tune on instead, where a report uses all episodes
    info_keys: tuple[str, ...] = ()  # entries of the environment's info to record at an episode's end
    # episodes and data -> further columns of the table of episodes, each [episodes]
    columns: Callable[[Episodes, TrajectoryDataset], Mapping[str, NDArray[Any]]] = no_columns
    sources: tuple[DataSource, ...] = ()  # of its data, the best first; (): `load_dataset` alone
    target_units: TargetUnits | None = None  # of targets and of the data's returns; None: the environment's rewards
    targets_of: Callable[[TrajectoryDataset], TargetReturns] | None = None  # target returns that depend on the data
    # Further facts to record of a trained learner, as plain JSON.
    inspect: Callable[[Learner, TrajectoryDataset], Mapping[str, Any]] | None = None

    def __repr__(self) -> str:
        return f"Task({self.name}: {self.description} Score: {self.score_name})"

    def targets(self, dataset: TrajectoryDataset) -> TargetReturns:
        """Return the target returns of policies trained on this data, in `target_units`."""
        return self.target_returns if self.targets_of is None else self.targets_of(dataset)

    def facts(self) -> dict[str, Any]:
        """Return the description that is recorded beside each result, as plain JSON."""
        return {
            "name": self.name,
            "domain": self.domain,
            "version": self.version,
            "description": self.description,
            "score_name": self.score_name,
            **({"target_units": self.target_units.name} if self.target_units else {}),
        }

    def tuning_seeds(self, episodes: int) -> list[int]:
        """Return the seeds of a search's evaluation episodes, none of which a report uses.

        Raises IncompatibleTask, with what to tune on instead, where a report uses all episodes.
        """
        if self.tune_on:
            raise IncompatibleTask(
                f"{self.name} is evaluated from all of its starts: none is left to tune on. {self.tune_on}"
            )
        return [seed + TUNING_SHIFT for seed in self.evaluation_seeds(episodes)]

    def open(self, source: str = AUTO) -> TrajectoryDataset:
        """Return the data from a source, or from that which `resolve` chooses for "auto".

        Raises UnknownName for other sources. A task without `sources` has one, named in its data's info.
        """
        if self.sources:
            self.check_source(source)
            return {found.name: found for found in self.sources}[self.resolve(source)].load()
        dataset = self.load_dataset()
        known = (AUTO, str(dataset.info.get("source", "unknown")))
        if source not in known:
            raise UnknownName(f"source of {self.name}", source, known)
        return dataset

    def check_source(self, source: str) -> None:
        """Raise UnknownName for a name that is none of `sources`, where there are any; no data are opened."""
        known = [AUTO, *(found.name for found in self.sources)]
        if self.sources and source not in known:
            raise UnknownName(f"source of {self.name}", source, known)

    def resolve(self, source: str = AUTO, *, fetch: bool = True) -> str:
        """Return the source that "auto" stands for: real data on disk, else downloadable data, else the last source.

        With `fetch` the downloads are tried, in the order of `sources`. Other names are returned as they are.
        """
        if source != AUTO or not self.sources:
            return source
        *others, last = self.sources
        real = [source for source in others if source.automatic]
        for candidate in real:
            if candidate.available():
                return candidate.name
        for candidate in real:
            if fetch and candidate.fetch is not None and _fetched(candidate):
                return candidate.name
        return last.name


def check_seed(seed: Any) -> None:
    """Raise InvalidValue for a seed that numpy's generators do not accept."""
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise InvalidValue(f"seed {seed!r:.40} must be a whole number from 0 to {2**31 - 1}.")


def whole_number(what: str, value: Any, *, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return a whole number as an int, numpy's too; raise InvalidValue for anything else or outside of the bounds."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise InvalidValue(f"{what} {value!r:.40} must be a whole number from {least} to {most}.")
    return int(value)


def check_length(what: str, value: Any) -> None:
    """Raise InvalidValue for an episode's length that is neither None nor a number of steps."""
    if value is not None and (type(value) is not int or not 1 <= value <= LONGEST_EPISODE):
        raise InvalidValue(f"{what} {value!r:.40} must be a whole number from 1 to {LONGEST_EPISODE}.")


def check_flag(what: str, value: Any) -> None:
    """Raise InvalidValue for a value that is neither true nor false."""
    if type(value) is not bool:
        raise InvalidValue(f"{what} {value!r:.40} must be true or false.")


def _fetched(source: DataSource) -> bool:
    assert source.fetch is not None
    try:
        source.fetch()
    except MissingDataset:
        return False
    return source.available()


def normalized_score(episodes: Episodes, *, reference: tuple[float, float] | None) -> NDArray[np.float64]:
    """Return 100 (return - low) / (high - low), Fu et al. (2020), section 5, or the return without a reference."""
    if reference is None:
        return episodes.returns
    low, high = reference
    return 100 * (episodes.returns - low) / (high - low)
