"""The record of a hyperparameter search: configuration, candidates, cost and the best candidate."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from dtbench.errors import LedgerError, one_line
from dtbench.ledger.names import current_hyperparameters
from dtbench.ledger.schema import regular
from dtbench.ledger.store import write_bytes
from dtbench.ledger.trial_spec import TrialState

ENDED = (TrialState.DONE, TrialState.STOPPED, TrialState.DIVERGED)  # failed candidates are retried
SEARCHERS = ("random", "optuna", "grid")
SAMPLES = 32
REDUCTION_FACTOR = 3  # Li et al. (2018), Hyperband: 3 or 4; the smaller one stops fewer slow learners


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """The options of a search besides suite and space."""

    searcher: str = "random"
    samples: int | None = None  # None: SAMPLES, or the whole grid
    asha: bool = False
    grace: int | None = None  # gradient steps before a candidate may be stopped; None: the default of `rungs_of`
    reduction_factor: int = REDUCTION_FACTOR
    seeds: int = 1
    seed: int = 0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class SearchConfig(_Frozen):
    """The configuration of a search, which stays the same when it is continued."""

    suite: str
    preset: str
    overrides: tuple[str, ...]
    contender: str
    algorithm: str
    tasks: tuple[str, ...]
    trials: tuple[str, ...]  # keys of the contender's trials with its default hyperparameters
    space: dict[str, dict[str, tuple[Any, ...]]]
    searcher: str  # one of SEARCHERS
    seed: int  # of the searcher
    scheduler: Literal["none", "asha", "halving"]  # halving (synchronous) only in older records
    rungs: tuple[int, ...]  # gradient steps at which a candidate may be stopped; the last is train_steps
    reduction_factor: int  # of ASHA; 1: no candidate is stopped
    training_seeds: tuple[int, ...]
    evaluation_seeds: dict[str, tuple[int, int]]  # by task: the first and the last
    targets: dict[str, tuple[float, ...]]  # by task: the target returns tried; () for none
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
    target: float | None  # None: not return-conditioned
    mean: float
    episodes: int


class Candidate(_Frozen):
    """A setting of the hyperparameters and the scores of its trials."""

    number: int
    hyperparameters: dict[str, Any]
    state: TrialState = TrialState.RUNNING
    steps: int = 0  # gradient steps of all its trials together
    seconds: float = 0.0
    scores: tuple[Score, ...] = Field(default=(), validation_alias=AliasChoices("scores", "rows"))

    @property
    def episodes(self) -> int:
        """Return the number of evaluation episodes of all its trials."""
        return sum(score.episodes for score in self.scores)

    def objective(self, config: SearchConfig, step: int | None = None) -> float | None:
        """Return the mean over tasks of the best target's score (mean over seeds); None where a score is missing.

        `step` is by default the last one that all trials reached.
        """
        step = self.last_step(config) if step is None else step
        best = [max(self.by_target(config, task, step).values(), default=np.nan) for task in config.tasks]
        return None if np.isnan(best).any() else float(np.mean(best))

    def by_target(self, config: SearchConfig, task: str, step: int | None) -> dict[float | None, float]:
        """Return the mean scores over training seeds at a step by target; only targets that all seeds have."""
        by_seed: dict[float | None, dict[int, float]] = {}
        for score in self.scores:
            if (score.task, score.step) == (task, step) and np.isfinite(score.mean):
                by_seed.setdefault(score.target, {})[score.seed] = score.mean
        complete = {target: by for target, by in by_seed.items() if set(by) == set(config.training_seeds)}
        return {target: float(np.mean(list(by.values()))) for target, by in complete.items()}

    def targets(self, config: SearchConfig) -> dict[str, float | None]:
        """Return by task the target return with the best score at the last step, the first of equals."""
        by_task = {task: self.by_target(config, task, self.last_step(config)) for task in config.tasks}
        return {task: max(scores, key=lambda target: scores[target]) for task, scores in by_task.items() if scores}

    def last_step(self, config: SearchConfig) -> int | None:
        """Return the last step at which all its trials were evaluated."""
        evaluated: dict[tuple[str, int], set[int]] = {}
        for score in self.scores:
            evaluated.setdefault((score.task, score.seed), set()).add(score.step)
        trials = [evaluated.get((task, seed), set()) for task in config.tasks for seed in config.training_seeds]
        return max(set.intersection(*trials), default=None)


class SearchRecord(BaseModel):
    """A search and its candidates so far."""

    model_config = ConfigDict(frozen=True)  # cost and best, in the file for readers, are computed

    name: str
    config: SearchConfig = Field(validation_alias=AliasChoices("config", "question"))
    num_samples: int = Field(validation_alias=AliasChoices("num_samples", "asked"))  # candidates to try
    candidates: tuple[Candidate, ...] = Field(default=(), validation_alias=AliasChoices("candidates", "samples"))

    @property
    def best(self) -> Candidate | None:
        """Return the candidate with the best objective after all training steps; the first of equals."""
        return next((one for one in self.ranked() if one.state == TrialState.DONE), None)

    @property
    def steps(self) -> int:
        """Return the gradient steps of all candidates."""
        return sum(candidate.steps for candidate in self.candidates)

    @property
    def settings_tried(self) -> int:
        """Return the number of pairs (setting, target return), since choosing the target is tuning too."""
        return len(self.candidates) * max(1, *map(len, self.config.targets.values()))

    def ranked(self) -> list[Candidate]:
        """Return all candidates with a score, sorted by their last step and their objective, the best first."""
        scored = [one for one in self.candidates if one.objective(self.config) is not None]
        return sorted(
            scored,
            key=lambda one: (-(one.last_step(self.config) or 0), -(one.objective(self.config) or 0), one.number),
        )

    def with_candidate(self, candidate: Candidate) -> "SearchRecord":
        """Return the record with this candidate, which replaces the one of its number."""
        others = [one for one in self.candidates if one.number != candidate.number]
        ordered = sorted((*others, candidate), key=lambda one: one.number)
        return self.model_copy(update={"candidates": tuple(ordered)})


def write_record(path: Path, record: SearchRecord) -> None:
    """Write a record atomically."""
    write_bytes(path, record_text(record).encode())


def record_text(record: SearchRecord) -> str:
    """Return the record as JSON with one line a candidate."""
    head = {"format": 2, **record.model_dump(mode="json", exclude={"candidates"}), **_outcome(record)}
    lines = ",\n".join(json.dumps(one.model_dump(mode="json"), sort_keys=True) for one in record.candidates)
    return f'{json.dumps(head, indent=2, sort_keys=True)[:-2]},\n  "candidates": [\n{lines}\n  ]\n}}\n'


def read_record(path: Path) -> SearchRecord:
    """Read a record, also with earlier names; raise LedgerError where it is damaged."""
    try:
        return _with_current_names(SearchRecord.model_validate_json(regular(path).read_bytes()))
    except (OSError, ValueError) as error:
        cause = one_line(str(error), 200)
        raise LedgerError(f"cannot read the search {path}: {cause}. Restore it, or delete it.") from error


def read_records(folder: Path) -> tuple[SearchRecord, ...]:
    """Return the records in a directory such as results/searches, sorted by name."""
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
    outcome = {"number": best.number, "score": best.objective(config), "targets": best.targets(config)}
    return {"cost": cost, "best": outcome}
