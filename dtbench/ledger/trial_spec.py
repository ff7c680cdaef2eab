"""Trials: TrialSpec (contender x task x seed), its key, and TrialState."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from dtbench.ledger.names import current_names, key_names

ActionMode = Literal["greedy", "sample", "epsilon_greedy"]
EPSILON = 0.001  # of action mode epsilon_greedy: Dopamine's when it evaluates (Castro et al. 2018)


class TrialState(StrEnum):
    """The states of a trial, as files and terminals show them."""

    MISSING = "missing"
    INTERRUPTED = "interrupted"  # it has a checkpoint
    RUNNING = "running"
    STOPPED = "stopped"  # by the user, after writing its checkpoint or before it started
    LOST = "lost"  # its worker died; another one will continue it
    FAILED = "failed"
    GIVEN_UP = "given up"  # it failed MOST_FAILURES times
    DIVERGED = "diverged"  # a loss was not finite
    DAMAGED = "damaged"  # its files cannot be read
    DONE = "done"

    @classmethod
    def _missing_(cls, value: object) -> "TrialState | None":
        return cls.INTERRUPTED if value == "partial" else None  # its name in earlier archives


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """When and how a trial is evaluated."""

    episodes: int  # for each target return
    every: int  # gradient steps between evaluations; the last step is always evaluated
    targets: tuple[float, ...]  # target returns; ignored by learners that take none
    action_mode: str  # an ActionMode; not checked, so that every record can be read
    sweep: tuple[float, ...] = ()  # further targets of the last evaluation
    purpose: str = "report"  # or "tuning", which evaluates on other episodes than those reported

    @property
    def last_targets(self) -> tuple[float, ...]:
        """Return the target returns of the last evaluation, each once."""
        return tuple(dict.fromkeys((*self.targets, *self.sweep)))


@dataclass(frozen=True)
class TrialSpec:
    """Everything that determines a trial's outcome, and the labels of its report."""

    suite: str  # a label: no part of the key
    contender: str  # a label: no part of the key
    task: str
    task_version: int
    dataset_digest: str
    dataset_source: str
    algorithm: str  # a registered name, or "file_or_module:Class"
    algorithm_version: str
    hyperparameters: Mapping[str, Any]  # all of them, defaults included
    seed: int
    train_steps: int  # gradient steps
    evaluation: EvaluationSpec
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0, "gpu": 0.0})  # no part of the key
    open_from: str = ""  # the task's data source, where it has several: no part of the key
    task_options: Mapping[str, Any] = field(default_factory=dict)  # e.g. the physics
    environment: str = ""  # digest of the source of a gymnasium environment
    action_scale: str = ""  # "unit" where learners see a Box of actions that is not [-1, 1] as if it were

    @cached_property
    def key(self) -> str:
        """Return the hash of everything that determines the outcome: 16 hexadecimal digits."""
        return _hash({**self._identity(), "seed": self.seed})

    @cached_property
    def cell(self) -> str:
        """Return the key without the seed: it identifies the configuration."""
        return _hash(self._identity())

    @cached_property
    def task_identity(self) -> str:
        """Return the hash of what all contenders of one table share: data, environment and their versions."""
        names = ("task", "task_version", "task_options", "environment", "dataset_digest")
        return _hash({name: value for name, value in self._identity().items() if name in names})

    @cached_property
    def training(self) -> str:
        """Return the hash of what decides the learner: the key without targets, episodes and mode of evaluation."""
        evaluation = {"every": self.evaluation.every}
        return _hash({**self._identity(), "seed": self.seed, "evaluation": evaluation})

    def labelled(self, *, suite: str, contender: str) -> "TrialSpec":
        """Return the trial under other labels."""
        return dataclasses.replace(self, suite=suite, contender=contender)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the key for readers."""
        return {**self._plain(), "key": self.key}

    @staticmethod
    def from_json(text: Mapping[str, Any]) -> "TrialSpec":
        """Return the trial of `to_json`'s values, also under earlier names."""
        values = current_names({name: value for name, value in text.items() if name != "key"})
        evaluation = values.pop("evaluation")
        lists = {name: tuple(evaluation.get(name, ())) for name in ("targets", "sweep")}
        evaluation = EvaluationSpec(**{**evaluation, **lists})
        return TrialSpec(**values, evaluation=evaluation)

    def _plain(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        if self.evaluation.purpose == "report":
            del plain["evaluation"]["purpose"]
        for name in ("action_scale", "environment"):
            if not plain[name]:
                del plain[name]
        return plain

    def _identity(self) -> dict[str, Any]:
        labels = ("suite", "contender", "resources", "seed", "dataset_source", "open_from")
        identity = {name: value for name, value in key_names(self._plain()).items() if name not in labels}
        # Unused settings are left out, so that trials from before they existed keep their keys.
        if not self.evaluation.sweep:
            del identity["evaluation"]["sweep"]
        # A data file is identified by its digest, not by its path.
        identity["task_options"] = {name: value for name, value in self.task_options.items() if name != "file"}
        if not identity["task_options"]:
            del identity["task_options"]
        if self.hyperparameters.get("sha256"):  # likewise a model
            identity["hyperparameters"] = {k: v for k, v in self.hyperparameters.items() if k != "path"}
        return identity


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
