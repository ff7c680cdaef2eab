"""What a suite may say: its settings and their limits, checked when a document becomes a Suite."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from dtbench.errors import InvalidSuite, UnknownName, one_line
from dtbench.ledger.names import check_current
from dtbench.ledger.trial_spec import ActionMode

T = TypeVar("T")

# What is beyond these is a slip of the finger, and is refused before it fills memory or a week.
LARGEST_SEED = 2**31 - 1
MOST_TRIALS = 100_000
MOST_STEPS = 1_000_000_000
MOST_EPISODES = 1_000_000
MOST_TARGETS = 1000
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evaluation(_Strict):
    """How every contender of the suite is judged."""

    episodes: int = Field(default=100, ge=1, le=MOST_EPISODES)
    every: int = Field(default=1000, ge=1, le=MOST_STEPS)
    action_mode: ActionMode = "greedy"
    targets: list[FiniteFloat] | None = Field(default=None, max_length=MOST_TARGETS)  # None: the task's own
    # Further targets of the last checkpoint: 0 to 1.5 x the data's best return.
    sweep: int = Field(default=0, ge=0, le=MOST_TARGETS)


class ContenderSettings(_Strict):
    """What a contender says of itself, and may say otherwise for some tasks."""

    algorithm: str = ""
    train_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    description: str = ""
    action_mode: ActionMode | None = None  # None: the suite's
    eval_interval: int | None = Field(default=None, ge=1, le=MOST_STEPS)  # gradient steps; None: the suite's
    hyperparameter_preset: str = ""  # a named set of the algorithm's own `presets`, on which the differences are laid
    hyperparameters: dict[str, Any] = {}


class Contender(ContenderSettings):
    """One row of the table: an algorithm and its differences from the defaults."""

    algorithm: str
    train_steps: int = Field(ge=0, le=MOST_STEPS)
    by_task: dict[str, ContenderSettings] = {}  # task name or pattern -> what is otherwise there; the last one counts


class Resources(_Strict):
    """What one trial takes: processor cores (which are also its threads) and a share of a GPU."""

    cpu: int = Field(default=1, ge=1)
    gpu: float = Field(default=0.0, ge=0)
    extra_cpu: int = Field(default=0, ge=0)  # cores beside its own, for Ray tasks that its learner starts (RLlib's)


class TaskSettings(_Strict):
    """What a suite says otherwise for some tasks."""

    evaluation: Evaluation = Evaluation()
    task_options: dict[str, Any] = {}


class Suite(_Strict):
    """What to run, with preset and overrides already applied."""

    name: str
    title: str
    description: str = ""
    tasks: list[str] = Field(min_length=1)
    contenders: dict[str, Contender] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1, max_length=MOST_TRIALS)
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    source: str = "auto"  # of the data: auto, or a name from the tasks' own sources
    task_options: dict[str, Any] = {}  # given to every task: physics, steps, ...
    by_task: dict[str, TaskSettings] = {}  # task name or pattern -> what is otherwise there; the last one counts
    published: list[dict[str, Any]] = []
    preset: str = ""
    overrides: list[str] = []

    def options_of(self, task: str) -> dict[str, Any]:
        """What the task is made with."""
        own = [settings.task_options for settings in of_task(self.by_task, task)]
        return {name: value for options in (self.task_options, *own) for name, value in options.items()}

    def evaluation_of(self, task: str) -> Evaluation:
        """How contenders are judged on the task."""
        found = self.evaluation
        for settings in of_task(self.by_task, task):
            found = found.model_copy(update=stated(settings.evaluation))
        return found


def validated(document: dict[str, Any]) -> Suite:
    """The suite of a document; raise UnknownName for a key that is none, InvalidSuite for a value that cannot be."""
    try:
        return Suite.model_validate(document)
    except ValidationError as error:
        for found in error.errors():
            check_current(str(found["loc"][-1] if found["type"] == "extra_forbidden" else found["input"]))
        # A mistyped key is missing under its right name too: what is there but unknown tells more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = one_line(".".join(map(str, first["loc"])), 120)
        if first["type"] == "extra_forbidden":
            raise UnknownName("key", place, _model_at(first["loc"][:-1]).model_fields) from None
        raise InvalidSuite(f"suite {document.get('name')!s:.80}: {place}: {first['msg']}.") from None


def of_task(settings: Mapping[str, T], task: str) -> Iterator[T]:
    """What is said of a task by its name or by a pattern, in the order in which it is said."""
    return (value for pattern, value in settings.items() if fnmatch.fnmatchcase(task, pattern))


def stated(settings: BaseModel) -> dict[str, Any]:
    """What settings say, without what they leave open."""
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _model_at(place: Sequence[str | int]) -> type[BaseModel]:
    """The model of the settings at this place of a suite."""
    if "contenders" in place:
        return ContenderSettings if "by_task" in place else Contender
    by_name: dict[str | int, type[BaseModel]] = {"evaluation": Evaluation, "resources": Resources}
    if place and place[-1] in by_name:
        return by_name[place[-1]]
    return TaskSettings if "by_task" in place else Suite
