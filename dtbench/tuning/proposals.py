"""Where a search's samples come from: a list that is known beforehand, or optuna, by way of Ray Tune's searcher."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from dtbench.errors import DtbenchError
from dtbench.tuning.driver import Journal, Plan, Proposals
from dtbench.tuning.search import ENDED, Sample
from dtbench.tuning.space import Range, Setting, Space

MOST_REPEATS = 100  # of settings already tried, one after the other, until optuna is taken to have run out of them


def proposals_of(plan: Plan, journal: Journal) -> Proposals:
    """The samples that a search still has to try; those that were begun come first."""
    return OptunaProposals(plan, journal) if plan.question.searcher == "optuna" else ListedProposals(plan, journal)


class ListedProposals:
    """Settings that are all known beforehand: a grid's, or random ones."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        """Leave out what has ended."""
        known = {sample.number: sample for sample in journal.record.samples}
        samples = [known.get(number, Sample(number, setting)) for number, setting in enumerate(plan.settings)]
        self.left = [sample for sample in samples if sample.state not in ENDED]

    def next(self) -> Sample | None:
        """The next one in the list."""
        return self.left.pop(0) if self.left else None

    def tell(self, sample: Sample) -> None:
        """Nothing is learned from it."""


class OptunaProposals:
    """Settings that optuna's TPE sampler chooses by what was found so far, in an earlier run of the search too."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        """Raise DtbenchError where optuna is not installed."""
        if importlib.util.find_spec("optuna") is None:
            raise DtbenchError("--searcher optuna needs optuna: pip install 'dtbench[search]', or --searcher random.")
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.plan, self.journal = plan, journal
        self.asked: dict[int, str] = {}  # sample -> what the sampler calls it
        seed = plan.question.seed + len(journal.record.samples)  # else a continued search would ask the same again
        sampler = optuna.samplers.TPESampler(seed=seed)
        self.search = OptunaSearch(distributions(plan.space), metric="score", mode="max", sampler=sampler)
        self.left = journal.unfinished()
        for sample in journal.record.samples:
            if sample.state in ENDED:
                self._give_back(sample)

    def next(self) -> Sample | None:
        """One to continue, else a new one that no earlier one equals; None where all are asked for or none is left."""
        if self.left:
            return self.left.pop(0)
        samples = self.journal.record.samples
        if len(samples) >= self.plan.asked:
            return None
        number = len(samples)
        for attempt in range(MOST_REPEATS):
            name = f"{number}-{attempt}"
            setting = decoded(self.plan.space, self.search.suggest(name) or {})
            if all(setting != sample.hyperparameters for sample in samples):
                self.asked[number] = name
                return Sample(number, setting)
            self.search.on_trial_complete(name, error=True)
        return None

    def tell(self, sample: Sample) -> None:
        """Let the sampler know the score, or that there is none."""
        if sample.number not in self.asked:
            self._give_back(sample)
            return
        score = sample.objective(self.plan.question)
        found = None if score is None else {"score": score}
        self.search.on_trial_complete(self.asked[sample.number], found, error=found is None)

    def _give_back(self, sample: Sample) -> None:
        score = sample.objective(self.plan.question)
        if score is not None:
            self.search.add_evaluated_point(encoded(self.plan.space, sample.hyperparameters), score)


def distributions(space: Space) -> dict[str, Any]:
    """The space as optuna has it; choices by their place, since they may be lists."""
    return {name: _distribution(found) for name, found in space.items()}


def _distribution(found: Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if found.kind == "choices":
        return CategoricalDistribution(list(range(len(found.values))))
    low, high = found.values
    if found.kind == "integers":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=found.kind == "log")


def decoded(space: Space, proposal: Mapping[str, Any]) -> Setting:
    """A setting from what optuna says."""
    return {name: _value(found, proposal[name]) for name, found in space.items()}


def _value(found: Range, said: Any) -> Any:
    if found.kind == "choices":
        return found.values[said]
    return said if found.kind == "integers" else found.rounded(said)


def encoded(space: Space, setting: Setting) -> dict[str, Any]:
    """What optuna says, from a setting."""
    return {
        name: found.values.index(setting[name]) if found.kind == "choices" else setting[name]
        for name, found in space.items()
    }
