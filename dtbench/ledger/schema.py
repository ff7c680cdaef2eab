"""The files of a ledger and of an archive: one pydantic model a file. Unknown fields are kept."""

import dataclasses
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from dtbench.errors import LedgerError
from dtbench.ledger.trial_spec import TrialSpec, TrialState

M = TypeVar("M", bound=BaseModel)
Whole = Annotated[int, Field(ge=-(10**15), le=10**15)]
Number = Whole | float | None
Finite = Annotated[float, Field(allow_inf_nan=False)]

TRIAL_ADVICE = "Delete that trial's directory and run the suite again."
SUITE_ADVICE = "Delete it and run the suite again: its trials stay."


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Result(_File):
    """`result.json`: the outcome of a finished trial."""

    action_mode: str
    return_conditioned: bool | None = None
    family: str | None = None
    seconds: Number = None
    steps: Number = None
    parameters: Number = None
    context: Number = None


class Histogram(_File):
    """A histogram of returns."""

    counts: list[Whole]
    edges: list[Finite]

    @model_validator(mode="after")
    def _fits(self) -> "Histogram":
        if len(self.edges) != len(self.counts) + 1 or any(a > b for a, b in pairwise(self.edges)):
            raise ValueError("the edges are not those of the counts")
        return self


class Card(_File):
    """The statistics of a dataset."""

    episodes: Whole | None = None
    steps: Whole | None = None
    return_mean: Finite | None = None
    return_min: Finite | None = None
    return_max: Finite | None = None
    length_mean: Finite | None = None
    return_histogram: Histogram | None = None


class DatasetProvenance(_File):
    """The data of a trial."""

    info: dict[str, Any] | None = None  # each domain's own: it reads what fits
    card: Card | None = None


class Provenance(_File):
    """`provenance.json`: code, versions, machine and data of a finished trial."""

    dataset: DatasetProvenance | None = None
    task: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None


class Inspection(_File):
    """`inspection.json`: a task's analysis of the learner."""


class Failure(_File):
    """`failure.json`: the last failure of a trial."""

    cause: str = ""
    message: str = ""
    step: Whole | None = None
    times: Whole = 1


class Running(_File):
    """`running.json`: the process that runs a trial, and its progress."""

    host: str = ""
    process: Whole = 0
    began: str = ""
    step: Whole = 0
    from_step: Whole = 0
    score: Number = None
    ended: bool = False


def check_file_name(name: str) -> str:
    """Return a suite's name; raise LedgerError where its files would leave the directory of suites."""
    if not name or name.startswith(".") or set(name) & {"/", "\\", "\0"}:
        raise LedgerError(f"{name!r:.100} is not the name of a file. Rename the suite in the ledger.")
    return name


class SuiteDocument(_File):
    """A suite as it ran."""

    name: Annotated[str, AfterValidator(check_file_name)]
    contenders: dict[str, dict[str, Any]]
    title: str | None = None
    description: str | None = None
    preset: str | None = None
    tasks: list[str] = []
    seeds: list[Any] = []
    evaluation: dict[str, Any] = {}
    published: list[Any] = []


class SavedSuite(SuiteDocument):
    """`suites/<name>.json` of a ledger."""

    preset: str | None
    overrides: Any
    evaluation: dict[str, Any]
    trials: list[dict[str, Any]]
    superseded: list[dict[str, Any]] = []  # finished trials of earlier configurations


class ArchivedSuite(_File):
    """`suite.json` of an archive."""

    suite: SuiteDocument
    provenances: list[Provenance]


class ArchivedTrial(_File):
    """A line of `trials.jsonl` of an archive."""

    spec: dict[str, Any]
    state: Annotated[TrialState, Field(strict=False)]
    result: Result | None = None
    provenance: int | None = None
    started: str | None = None
    finished: str | None = None
    inspection: dict[str, Any] | None = None
    error: str = ""
    cause: str = ""
    superseded: bool = False  # by a newer configuration of its task and contender


def regular(path: Path) -> Path:
    """Return the path; raise OSError where it is a link, a pipe or a device: a read could hang or leave the ledger."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError("not a regular file")
    return path


def read_text(path: Path) -> str:
    """Return the content of a text file, "" where there is none; raise LedgerError where it cannot be read."""
    try:
        return regular(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise unreadable(path, error) from error


def read(path: Path, model: type[M]) -> M:
    """Return the content of a JSON file; raise LedgerError, naming the file, where it is damaged."""
    return model.model_validate(read_mapping(path, model))


def read_mapping(path: Path, model: type[BaseModel], advice: str = TRIAL_ADVICE) -> dict[str, Any]:
    """Return the content of a JSON file, checked against a model, as plain values."""
    try:
        return validated(json.loads(regular(path).read_text(encoding="utf-8")), model)
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error, advice) from error


def validated(value: Any, model: type[BaseModel]) -> dict[str, Any]:
    """Return the value itself; raise ValueError where it does not fit the model."""
    model.model_validate(value)
    return dict(value)


def parse_spec(value: Mapping[str, Any]) -> TrialSpec:
    """Return a trial's spec from plain values; raise ValueError where they are damaged or the key is another's."""
    try:
        spec = TrialSpec.from_json(validated(value, _Spec))
    except TypeError as error:  # a field is missing, or of another version of dtbench
        raise ValueError(f"not a trial: {error}") from error
    _SPEC.validate_json(json.dumps(dataclasses.asdict(spec)), strict=True)
    if value.get("key", spec.key) != spec.key:
        raise ValueError(f"trial {value['key']!r:.40} has the key {spec.key}")
    return spec


def unreadable(path: Path, error: Exception | str, advice: str = TRIAL_ADVICE) -> LedgerError:
    """Return the error for a file that cannot be read."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        error = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return LedgerError(f"cannot read {path}: {str(error) or type(error).__name__}. {advice}")


class _Spec(_File):
    algorithm: str
    hyperparameters: dict[str, Any]
    evaluation: dict[str, Any]


_SPEC = TypeAdapter(TrialSpec)
