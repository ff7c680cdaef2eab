"""The record of a search: what it was configured with, every candidate, what it cost and which one is best."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from dtbench.errors import LedgerError, one_line
from dtbench.ledger.names import current_hyperparameters
from dtbench.ledger.store import write_bytes
from dtbench.ledger.trial_spec import TrialState

ENDED = (TrialState.DONE, TrialState.STOPPED, TrialState.DIVERGED)  # not tried again; a failure is
SEARCHERS = ("random", "optuna", "grid")
SAMPLES = 32
REDUCTION_FACTOR = 3  # Li et al. (2018), Hyperband: 3 or 4; the gentler one loses fewer that learn slowly


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How to search, apart from the suite and the space."""

    searcher: str = "random"
    samples: int | None = None  # None: SAMPLES, or the whole grid
    asha: bool = False
    grace: int | None = None  # gradient steps before a candidate may be stopped; None: `rungs_of` says
    reduction_factor: int = REDUCTION_FACTOR
    seeds: int = 1
    seed: int = 0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class SearchConfig(_Frozen):
    """What a search is configured with; a search that is continued must have the same."""

    suite: str
    preset: str
    overrides: tuple[str, ...]
    contender: str
    algorithm: str
    tasks: tuple[str, ...]
    trials: tuple[str, ...]  # keys of the contender's own trials: of its data, budget, evaluation and hyperparameters
    space: dict[str, dict[str, tuple[Any, ...]]]
    searcher: str  # one of SEARCHERS
    seed: int  # of the searcher
    scheduler: Literal["none", "asha", "halving"]  # halving, synchronous, is in older records only
    rungs: tuple[int, ...]  # gradient steps at which a candidate may be stopped; the last is the budget
    reduction_factor: int  # at each rung one candidate in so many goes on; 1: all do
    training_seeds: tuple[int, ...]
    evaluation_seeds: dict[str, tuple[int, int]]  # by task: the first and the last
    targets: dict[str, tuple[float, ...]]  # by task: the target returns tried, the task's own first; () for none
    score_names: dict[str, str]  # by task
    data: dict[str, str]  # by task: the source of its data

    @property
    def train_steps(self) -> int:
        """Return the gradient steps of a trial that is not stopped."""
        return self.rungs[-1]

    @property
    def full_steps(self) -> int:
        """Return the gradient steps of a candidate that is not stopped: all tasks and training seeds together."""
        return self.train_steps * len(self.tasks) * len(self.training_seeds)


class Score(NamedTuple):
    """The mean score of one trial at one step for one target return."""

    task: str
    seed: int
    step: int
    target: float | None  # None: the contender takes none
    mean: float
    episodes: int


class Candidate(_Frozen):
    """One setting of the hyperparameters, and how far its trials came."""

    number: int
    hyperparameters: dict[str, Any]
    state: TrialState = TrialState.RUNNING
    steps: int = 0  # gradient steps of all its trials together
    seconds: float = 0.0
    scores: tuple[Score, ...] = Field(default=(), validation_alias=AliasChoices("scores", "rows"))

    @property
    def episodes(self) -> int:
        """Return the evaluation episodes of all its trials together."""
        return sum(score.episodes for score in self.scores)

    def objective(self, config: SearchConfig, step: int | None = None) -> float | None:
        """Return the mean over tasks of each task's best target's score; None where an evaluation is missing.

        A score is the mean over the training seeds; `step` is by default the last one that all trials reached.
        """
        step = self.last_step(config) if step is None else step
        best = [max(self.by_target(config, task, step).values(), default=None) for task in config.tasks]
        found = [score for score in best if score is not None]
        return float(np.mean(found)) if len(found) == len(config.tasks) else None

    def by_target(self, config: SearchConfig, task: str, step: int | None) -> dict[float | None, float]:
        """Return by target the mean score over all training seeds at a step, without targets that a seed lacks."""
        found: dict[float | None, dict[int, float]] = {}
        for score in self.scores:
            if (score.task, score.step) == (task, step) and np.isfinite(score.mean):
                found.setdefault(score.target, {})[score.seed] = score.mean
        whole = set(config.training_seeds)
        return {target: float(np.mean(list(by.values()))) for target, by in found.items() if set(by) == whole}

    def targets(self, config: SearchConfig) -> dict[str, float | None]:
        """Return by task the target return with the best score at the last step, the earlier one of equals."""
        found = {task: self.by_target(config, task, self.last_step(config)) for task in config.tasks}
        return {task: max(scores, key=lambda target: scores[target]) for task, scores in found.items() if scores}

    def last_step(self, config: SearchConfig) -> int | None:
        """Return the last step at which all of its trials were evaluated."""
        evaluated: dict[tuple[str, int], set[int]] = {}
        for score in self.scores:
            evaluated.setdefault((score.task, score.seed), set()).add(score.step)
        trials = [evaluated.get((task, seed), set()) for task in config.tasks for seed in config.training_seeds]
        return max(set.intersection(*trials), default=None)


class SearchRecord(BaseModel):
    """A search, as far as it has come."""

    model_config = ConfigDict(frozen=True)  # cost and best, which are in the file for its readers, are computed

    name: str
    config: SearchConfig = Field(validation_alias=AliasChoices("config", "question"))
    num_samples: int = Field(validation_alias=AliasChoices("num_samples", "asked"))  # candidates to try
    candidates: tuple[Candidate, ...] = Field(default=(), validation_alias=AliasChoices("candidates", "samples"))

    @property
    def best(self) -> Candidate | None:
        """Return the candidate with the best objective of those that were trained to the end; the first of equals."""
        found = [
            (one.objective(self.config), -one.number, one) for one in self.candidates if one.state == TrialState.DONE
        ]
        scored = [(score, place, one) for score, place, one in found if score is not None]
        return max(scored)[2] if scored else None

    @property
    def steps(self) -> int:
        """Return the gradient steps of all candidates."""
        return sum(candidate.steps for candidate in self.candidates)

    @property
    def settings_tried(self) -> int:
        """Return the number of pairs of a setting and a target return: choosing the target is tuning too."""
        return len(self.candidates) * max(1, *map(len, self.config.targets.values()))

    def ranked(self) -> list[Candidate]:
        """Return all candidates with a score, those that came furthest first, and of these the best."""
        found = [(one.last_step(self.config), one.objective(self.config), -one.number, one) for one in self.candidates]
        scored = [(step or 0, score, place, one) for step, score, place, one in found if score is not None]
        return [one for *_, one in sorted(scored, reverse=True)]

    def with_candidate(self, candidate: Candidate) -> "SearchRecord":
        """Return the record with this candidate in place of the one of its number, or added."""
        others = [one for one in self.candidates if one.number != candidate.number]
        ordered = sorted((*others, candidate), key=lambda one: one.number)
        return self.model_copy(update={"candidates": tuple(ordered)})


def write_record(path: Path, record: SearchRecord) -> None:
    """Write a record atomically."""
    write_bytes(path, record_text(record).encode())


def record_text(record: SearchRecord) -> str:
    """Return the record as JSON, a line a candidate; equal searches give equal text but for the seconds."""
    head = {"format": 2, **record.model_dump(mode="json", exclude={"candidates"}), **_outcome(record)}
    lines = ",\n".join(json.dumps(one.model_dump(mode="json"), sort_keys=True) for one in record.candidates)
    return f'{json.dumps(head, indent=2, sort_keys=True)[:-2]},\n  "candidates": [\n{lines}\n  ]\n}}\n'


def read_record(path: Path) -> SearchRecord:
    """Return what `write_record` wrote, by its older names too; LedgerError for what is damaged."""
    try:
        return _with_current_names(SearchRecord.model_validate_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        cause = one_line(str(error), 200)
        raise LedgerError(f"cannot read the search {path}: {cause}. Restore it, or delete it.") from error


def read_records(folder: Path) -> tuple[SearchRecord, ...]:
    """Return the finished searches in a folder such as results/searches, by name."""
    return tuple(read_record(path) for path in sorted(folder.glob("*.json")))


def _with_current_names(record: SearchRecord) -> SearchRecord:
    rename = partial(current_hyperparameters, record.config.algorithm)
    config = record.config.model_copy(update={"space": rename(record.config.space)})
    candidates = (one.model_copy(update={"hyperparameters": rename(one.hyperparameters)}) for one in record.candidates)
    return record.model_copy(update={"config": config, "candidates": tuple(candidates)})


def _outcome(record: SearchRecord) -> dict[str, Any]:
    best, config = record.best, record.config
    cost = {
        "settings_tried": record.settings_tried,
        "steps": record.steps,
        "steps_of_full_search": record.num_samples * config.full_steps,
        "episodes": sum(candidate.episodes for candidate in record.candidates),
        "seconds": round(sum(candidate.seconds for candidate in record.candidates), 1),
    }
    if best is None:
        return {"cost": cost, "best": None}
    found = {"number": best.number, "score": best.objective(config), "targets": best.targets(config)}
    return {"cost": cost, "best": found}
