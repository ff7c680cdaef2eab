"""Search spaces: ranges of hyperparameters, read from YAML, as Ray Tune domains."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dtbench import registry
from dtbench.errors import InvalidValue, UnknownName
from dtbench.suite import package_data
from dtbench.suite.loading import read_yaml

Kind = Literal["choices", "uniform", "log", "integers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Setting = Mapping[str, Any]  # hyperparameter -> value
_WRITE = "Write {choices: [...]}, {uniform: [a, b]}, {log: [a, b]} or {integers: [a, b]}."


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one hyperparameter: choices, or numbers between two ends."""

    kind: Kind
    values: tuple[Any, ...]  # the choices, or both ends

    def domain(self) -> Any:
        """Return the `ray.tune` domain; both ends of integers are included."""
        from ray import tune

        if self.kind == "choices":
            return tune.choice(list(self.values))
        low, high = self.values
        if self.kind == "integers":
            return tune.randint(low, high + 1)
        return (tune.loguniform if self.kind == "log" else tune.uniform)(low, high)

    def examples(self) -> tuple[Any, ...]:
        """Return values to check: all choices, or both ends and one between."""
        if self.kind in ("choices", "integers"):
            return self.values
        low, high = self.values
        return low, high, low + 0.377 * (high - low)

    @property
    def size(self) -> float:
        """Return the number of values."""
        if self.kind == "integers":
            return float(self.values[1] - self.values[0] + 1)
        return float(len(self.values)) if self.kind == "choices" else math.inf


Space = Mapping[str, Range]


def space_names() -> list[str]:
    """Return the names of the spaces in ./sweeps/spaces and in the package."""
    return sorted(Path(name).stem for name in package_data.names("sweeps/spaces") if name.endswith(".yaml"))


def load_space(name: str) -> Space:
    """Read a space by name or path; raise UnknownName for unknown names in it too, InvalidValue for other errors."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in space_names():
            raise UnknownName(
                "search space", name, space_names(), hint="For your own, write --space path/to/space.yaml."
            )
        path = package_data.find("sweeps/spaces", f"{name}.yaml")
    try:
        document = read_yaml(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UnknownName("search space file", name, space_names()) from None
    except (OSError, ValueError) as error:
        raise InvalidValue(f"cannot read {path} as YAML: {error}. {_WRITE}") from error
    return read_space(document, str(path))


def read_space(document: Any, where: str) -> Space:
    """Return the space of plain values {hyperparameter: {kind: [...]}}; errors start with `where`."""
    if not isinstance(document, Mapping) or not document:
        raise InvalidValue(f"{where} must be a mapping of hyperparameters to ranges; it is {document!r:.60}. {_WRITE}")
    return {str(name): _range(value, f"{where}: {name}") for name, value in document.items()}


def check_space(space: Space, algorithm: str, hyperparameters: Setting) -> None:
    """Raise UnknownName or InvalidValue for values that the algorithm refuses beside these hyperparameters.

    Each range is varied alone, with all others at their first values.
    """
    first = {name: values.examples()[0] for name, values in space.items()}
    for name, values in space.items():
        for value in values.examples():
            registry.make_algorithm(algorithm, {**hyperparameters, **first, name: value})


def grid(space: Space, seed: int) -> list[Setting]:
    """Return every combination of choices; raise InvalidValue for other ranges.

    The order is random, because early stopping compares a setting with earlier ones, and neighbours are similar.
    """
    for name, values in space.items():
        if values.kind != "choices":
            raise InvalidValue(f"{name}: a grid takes choices, and this is {values.kind}. Use --searcher random.")
    combinations = itertools.product(*(values.values for values in space.values()))
    settings = [dict(zip(space, combination, strict=True)) for combination in combinations]
    return [settings[index] for index in np.random.default_rng(seed).permutation(len(settings))]


def draw(space: Space, count: int, seed: int) -> list[Setting]:
    """Return distinct random settings; a larger count starts with the same ones. Raises InvalidValue for too many."""
    size = math.prod(values.size for values in space.values())
    if count > size:
        raise InvalidValue(f"{count} samples of a space of {size:.0f} settings. Use --searcher grid.")
    return list(itertools.islice(_distinct(space, seed), count))


def rounded(setting: Setting) -> Setting:
    """Return the setting with numbers rounded to six digits, for people to type."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in setting.items()}


def _distinct(space: Space, seed: int) -> Iterator[Setting]:
    domains = {name: space[name].domain() for name in sorted(space)}
    rng, seen = np.random.default_rng(seed), list[Setting]()
    while True:
        setting = rounded({name: domain.sample(random_state=rng) for name, domain in domains.items()})
        if setting not in seen:
            seen.append(setting)
            yield setting


def _range(value: Any, where: str) -> Range:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise InvalidValue(f"{where} is {value!r:.60}. {_WRITE}")
    ((kind, values),) = value.items()
    if kind not in KINDS:
        raise UnknownName(f"range of {where}", str(kind), KINDS)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InvalidValue(f"{where}: {kind} takes a list, not {values!r:.60}. {_WRITE}")
    if kind != "choices":
        _check_ends(kind, values, where)
    elif len({repr(one) for one in values}) < len(values):
        raise InvalidValue(f"{where}: {values!r:.60} has a choice twice. Write each once.")
    return Range(kind, tuple(values))


def _check_ends(kind: Kind, values: Sequence[Any], where: str) -> None:
    allowed = int if kind == "integers" else int | float
    numbers = all(isinstance(value, allowed) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not numbers or not all(map(math.isfinite, values)):
        what = "whole numbers" if kind == "integers" else "numbers"
        raise InvalidValue(f"{where}: {kind} takes two {what}, the lowest and the highest, not {values!r:.60}.")
    low, high = values
    if low >= high:
        raise InvalidValue(f"{where}: {kind} goes from {low} to {high}: write the lower one first.")
    if kind == "log" and low <= 0:
        raise InvalidValue(f"{where}: log begins at {low}: it must be above 0.")
