"""The record of a search: what was asked, every sample that was tried, what it cost and what came out best."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dtbench.errors import LedgerError
from dtbench.ledger.store import write_bytes

STATES = ("running", "done", "stopped", "failed", "diverged")
ENDED = ("done", "stopped", "diverged")  # not tried again; a failure is
SEARCHERS = ("random", "optuna", "grid")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Question:
    """What a search was asked; a search that is continued must be asked the same."""

    suite: str
    preset: str
    overrides: tuple[str, ...]
    contender: str
    algorithm: str
    tasks: tuple[str, ...]
    trials: tuple[str, ...]  # the keys that the contender's own trials have: data, budget, evaluation, all settings
    space: Mapping[str, Mapping[str, tuple[Any, ...]]]
    searcher: str  # one of SEARCHERS
    seed: int  # of the searcher
    scheduler: str  # none, asha (Ray Tune's, asynchronous) or halving (synchronous)
    rungs: tuple[int, ...]  # gradient steps at which a sample may be stopped; the last is the budget
    reduction_factor: int  # at each rung one sample in so many goes on; 1: all do
    training_seeds: tuple[int, ...]
    evaluation_seeds: Mapping[str, tuple[int, int]]  # by task: the first and the last
    targets: Mapping[str, tuple[float, ...]]  # by task: the target returns tried, the task's own first; () for none
    score_names: Mapping[str, str]  # by task
    data: Mapping[str, str]  # by task: the source of its data

    @property
    def budget(self) -> int:
        """Gradient steps of a trial that is not stopped."""
        return self.rungs[-1]

    @property
    def full_steps(self) -> int:
        """Gradient steps of a sample that is not stopped: all its tasks and training seeds together."""
        return self.budget * len(self.tasks) * len(self.training_seeds)


@dataclass(frozen=True, slots=True)
class Row:
    """The mean score of one trial of a sample at one step for one target return."""

    task: str
    seed: int
    step: int
    target: float | None  # None: it takes none
    score: float
    episodes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One setting of the hyperparameters, and how far it came."""

    number: int
    hyperparameters: Mapping[str, Any]
    state: str = "running"  # one of STATES
    steps: int = 0  # gradient steps of all its trials together
    seconds: float = 0.0
    rows: tuple[Row, ...] = ()

    @property
    def episodes(self) -> int:
        """Evaluation episodes of all its trials together."""
        return sum(row.episodes for row in self.rows)

    def objective(self, question: Question, step: int | None = None) -> float | None:
        """The mean over tasks of each task's best target's score; None where an evaluation is missing.

        A score is the mean over the training seeds; `step` is the last one that all trials reached if it is not said.
        """
        step = self.last_step(question) if step is None else step
        best = [max(self.scores(question, task, step).values(), default=None) for task in question.tasks]
        return (
            None
            if step is None or any(one is None for one in best)
            else float(np.mean([b for b in best if b is not None]))
        )

    def scores(self, question: Question, task: str, step: int | None) -> dict[float | None, float]:
        """By target return: the mean score over all training seeds at a step, without targets that a seed lacks."""
        found: dict[float | None, dict[int, float]] = {}
        for row in self.rows:
            if (row.task, row.step) == (task, step) and np.isfinite(row.score):
                found.setdefault(row.target, {})[row.seed] = row.score
        whole = set(question.training_seeds)
        return {target: float(np.mean(list(by.values()))) for target, by in found.items() if set(by) == whole}

    def targets(self, question: Question) -> dict[str, float | None]:
        """By task: the target return with the best score at the last step, the earlier one of equals."""
        found = {task: self.scores(question, task, self.last_step(question)) for task in question.tasks}
        return {task: max(scores, key=lambda target: scores[target]) for task, scores in found.items() if scores}

    def last_step(self, question: Question) -> int | None:
        """The last step at which all of its trials were evaluated."""
        by_trial = {(task, seed): {0} for task in question.tasks for seed in question.training_seeds}
        for row in self.rows:
            by_trial.setdefault((row.task, row.seed), {0}).add(row.step)
        common = set.intersection(*by_trial.values()) if by_trial else set()
        evaluated = {row.step for row in self.rows} & common
        return max(evaluated, default=None)


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """A search, as far as it has come."""

    name: str
    question: Question
    asked: int  # samples
    samples: tuple[Sample, ...] = ()

    @property
    def best(self) -> Sample | None:
        """The sample with the best objective among those that were trained to the end; the first of equals."""
        found = [(sample.objective(self.question), sample) for sample in self.samples if sample.state == "done"]
        scored = [(score, sample) for score, sample in found if score is not None]
        return max(scored, key=lambda one: (one[0], -one[1].number))[1] if scored else None

    @property
    def steps(self) -> int:
        """Gradient steps spent on all samples."""
        return sum(sample.steps for sample in self.samples)

    @property
    def settings_tried(self) -> int:
        """Pairs of a setting and a target return: choosing the target is tuning too."""
        asked = max((len(targets) for targets in self.question.targets.values()), default=0)
        return len(self.samples) * max(1, asked)

    def ranked(self) -> list[Sample]:
        """All samples with a score, those that came furthest first, and of these the best."""
        scored = [sample for sample in self.samples if sample.objective(self.question) is not None]
        return sorted(
            scored, key=lambda sample: (-(sample.last_step(self.question) or 0), -_score(sample, self.question))
        )

    def with_sample(self, sample: Sample) -> "SearchRecord":
        """The record with this sample in place of the one of its number, or added."""
        others = [one for one in self.samples if one.number != sample.number]
        return dataclasses.replace(self, samples=tuple(sorted((*others, sample), key=lambda one: one.number)))


def write_record(path: Path, record: SearchRecord) -> None:
    """Write a record atomically: a line a sample, in order; equal searches give equal bytes but for the seconds."""
    write_bytes(path, record_text(record).encode())


def record_text(record: SearchRecord) -> str:
    """The record as JSON."""
    question = dataclasses.asdict(record.question)
    head = {"format": FORMAT, "name": record.name, "asked": record.asked, "question": question, **_outcome(record)}
    lines = ",\n".join(json.dumps(plain_sample(sample), sort_keys=True) for sample in record.samples)
    text = json.dumps(head, indent=2, sort_keys=True)
    return f'{text[:-2]},\n  "samples": [\n{lines}\n  ]\n}}\n'


def read_record(path: Path) -> SearchRecord:
    """What `write_record` wrote; LedgerError for what is damaged."""
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}, this dtbench reads {FORMAT}")
        question = Question(**{name: _frozen(value) for name, value in found["question"].items()})
        samples = tuple(read_sample(one) for one in found["samples"])
        return SearchRecord(str(found["name"]), question, int(found["asked"]), samples)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__} {error}"
        raise LedgerError(
            f"cannot read the search {path}: {what}. Restore it, or remove it and search again."
        ) from error


def read_records(folder: Path) -> tuple[SearchRecord, ...]:
    """The finished searches that are kept in a folder such as results/searches, by name."""
    return tuple(read_record(path) for path in sorted(folder.glob("*.json")))


def plain_sample(sample: Sample) -> dict[str, Any]:
    """The sample as plain JSON."""
    plain = dataclasses.asdict(sample) | {"seconds": round(sample.seconds, 1)}
    return plain | {"rows": [list(dataclasses.astuple(row)) for row in sample.rows]}


def read_sample(found: Mapping[str, Any]) -> Sample:
    """What `plain_sample` gave; ValueError for a state that does not exist."""
    rows = tuple(Row(*row) for row in found["rows"])
    if found["state"] not in STATES:
        raise ValueError(f"state {found['state']!r}")
    return Sample(**{**found, "rows": rows})


def _score(sample: Sample, question: Question) -> float:
    found = sample.objective(question)
    return float("-inf") if found is None else found


def _outcome(record: SearchRecord) -> dict[str, Any]:
    """What readers of the file want to know first; computed anew when it is read."""
    best, question = record.best, record.question
    spent = {
        "samples": len(record.samples),
        "settings_tried": record.settings_tried,
        "steps": record.steps,
        "steps_of_full_search": record.asked * question.full_steps,
        "episodes": sum(sample.episodes for sample in record.samples),
        "seconds": round(sum(round(sample.seconds, 1) for sample in record.samples), 1),
    }
    if best is None:
        return {"spent": spent, "best": None}
    found = {"number": best.number, "score": best.objective(question), "targets": best.targets(question)}
    return {"spent": spent, "best": found}


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples."""
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, Iterable) and not isinstance(value, str) else value
