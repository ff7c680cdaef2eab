"""The settings of a suite and their limits, as pydantic models."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from dtbench.errors import InvalidSuite, UnknownName, one_line
from dtbench.ledger.names import check_current
from dtbench.ledger.trial_spec import ActionMode

T = TypeVar("T")

# Typing errors are refused before they fill the memory or a week.
LARGEST_SEED = 2**31 - 1
MOST_TRIALS = 100_000
MOST_STEPS = 1_000_000_000
MOST_EPISODES = 1_000_000
MOST_TARGETS = 1000
LARGEST_TARGET = 1e30  # float32 has no squares of larger ones, and a plot no axis
Target = Annotated[FiniteFloat, Field(ge=-LARGEST_TARGET, le=LARGEST_TARGET)]
SuiteGroup = Literal["questions", "ablations", "checks", "searches", "other"]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def _without_nulls(value: Any) -> Any:
    """Return a mapping without the tasks on which it takes back a base's changes."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, Mapping) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evaluation(_Strict):
    """How every contender is evaluated."""

    # episodes of each target return at an evaluation, from 1
    episodes: int = Field(default=100, ge=1, le=MOST_EPISODES)
    # gradient steps between two evaluations, from 1; the last step is always evaluated
    every: int = Field(default=1000, ge=1, le=MOST_STEPS)
    # how discrete actions are chosen: greedy, sample, or epsilon_greedy (one in a thousand at random)
    action_mode: ActionMode = "greedy"
    # target returns of return-conditioned policies, in the environment's rewards; null: the task's own
    targets: list[Target] | None = Field(default=None, max_length=MOST_TARGETS)
    # number of further target returns at the last evaluation, evenly from 0 to 1.5 x the data's best; 0: none
    sweep: int = Field(default=0, ge=0, le=MOST_TARGETS)


class ContenderSettings(_Strict):
    """The settings of a contender that can differ from task to task."""

    algorithm: str = ""  # a name from `dtbench list algorithms`, or my_file:MyAlgorithm
    train_steps: int = Field(default=0, ge=0, le=MOST_STEPS)  # gradient steps, from 0
    description: str = ""  # a sentence for the report
    # how discrete actions are chosen: greedy, sample or epsilon_greedy; null: as the suite's evaluation says
    action_mode: ActionMode | None = None
    # gradient steps between two evaluations; null: the suite's evaluation.every
    eval_interval: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    # the target return that its row stands for, one of those evaluated; null: the first
    headline_target: Target | None = None
    hyperparameter_preset: str = ""  # one of the algorithm's presets, below `hyperparameters`
    # differences from the algorithm's defaults: name -> value; train_steps as a value is the budget
    hyperparameters: dict[str, Any] = {}


class Contender(ContenderSettings):
    """An algorithm and its differences from the defaults."""

    algorithm: str
    train_steps: int = Field(ge=0, le=MOST_STEPS)
    # task name or pattern -> changes on it; later ones win; null takes back those of the base
    by_task: Annotated[
        dict[str, ContenderSettings],
        BeforeValidator(_without_nulls, json_schema_input_type=dict[str, ContenderSettings | None]),
    ] = {}


class Resources(_Strict):
    """The resources of one trial: CPU cores (also its number of threads) and a share of a GPU."""

    cpu: int = Field(default=1, ge=1)  # CPU cores of one trial, which is also its number of threads, from 1
    gpu: float = Field(default=0.0, ge=0)  # share of a GPU of one trial: 0.25 lets four trials share one; 0: none
    extra_cpu: int = Field(default=0, ge=0)  # further cores, for Ray tasks that its learner starts (RLlib's)


class TaskSettings(_Strict):
    """The settings of a suite that can differ from task to task."""

    evaluation: Evaluation = Evaluation()  # differences from the suite's evaluation
    task_options: dict[str, Any] = {}  # arguments of the task's function, over those of the suite


class Suite(_Strict):
    """A suite with preset and overrides applied."""

    name: str  # of the suite's scores and report: letters, digits and - . _; default: the file's name
    title: str  # heading in the report; default: the name
    description: str = ""  # text below the heading in the report
    tasks: list[str] = Field(min_length=1)  # names from `dtbench list tasks`, gym:ID, minari:ID, or my_file:my_task
    # name -> algorithm and its differences from the defaults: a row of each table
    contenders: dict[str, Contender] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1, max_length=MOST_TRIALS)  # training seeds, each once, from 0
    evaluation: Evaluation = Evaluation()  # how every contender is evaluated
    resources: Resources = Resources()  # of one trial
    imports: list[str] = []  # modules that register environments in gymnasium
    source: str = "auto"  # of the data: auto (on disk, else download, else generate), or one of the tasks' sources
    task_options: dict[str, Any] = {}  # arguments of every task's function: physics, steps, ...
    by_task: dict[str, TaskSettings] = {}  # task name or pattern -> changes on it; later ones win
    # largest difference of scores that counts as a match, above 0; null: 5 points where scores reach from 0 to 100
    margin: float | None = Field(default=None, gt=0, le=LARGEST_TARGET)
    draws: list[str] = []  # patterns of tasks that are draws of the same data: intervals of their mean are over draws
    published: list[dict[str, Any]] = []  # tables of results/published beside the suite's: file, table, title, ...
    group: SuiteGroup = "other"  # where the report lists the suite; its headline counts questions alone
    preset: str = ""  # the preset that is applied; set by commands
    overrides: list[str] = []  # the settings of the command line; set by commands

    def options_of(self, task: str) -> dict[str, Any]:
        """Return the options of a task."""
        changes = [settings.task_options for settings in of_task(self.by_task, task)]
        return {name: value for options in (self.task_options, *changes) for name, value in options.items()}

    def evaluation_of(self, task: str) -> Evaluation:
        """Return the evaluation settings of a task."""
        evaluation = self.evaluation
        for settings in of_task(self.by_task, task):
            evaluation = evaluation.model_copy(update=stated(settings.evaluation))
        return evaluation


def validated(document: dict[str, Any]) -> Suite:
    """Return the suite of a document; raise UnknownName for an unknown key, InvalidSuite for an invalid value."""
    try:
        return Suite.model_validate(document)
    except ValidationError as error:
        for one in error.errors():
            check_current(str(one["loc"][-1] if one["type"] == "extra_forbidden" else one["input"]))
        # A mistyped key is also missing under its right name: the unknown key is the better message.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        where = one_line(".".join(map(str, first["loc"])), 120)
        if first["type"] == "extra_forbidden":
            raise UnknownName("key", where, _model_at(first["loc"][:-1]).model_fields) from None
        raise InvalidSuite(f"suite {document.get('name')!s:.80}: {where}: {first['msg']}.") from None


def of_task(settings: Mapping[str, T], task: str) -> Iterator[T]:
    """Yield the settings whose name or pattern matches a task, in their order."""
    return (value for pattern, value in settings.items() if fnmatch.fnmatchcase(task, pattern))


def stated(settings: BaseModel) -> dict[str, Any]:
    """Return the settings that were set explicitly."""
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _model_at(path: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the settings at a path of a suite."""
    if "contenders" in path:
        return ContenderSettings if "by_task" in path else Contender
    by_name: dict[str | int, type[BaseModel]] = {"evaluation": Evaluation, "resources": Resources}
    if path and path[-1] in by_name:
        return by_name[path[-1]]
    return TaskSettings if "by_task" in path else Suite
