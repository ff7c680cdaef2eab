"""Search spaces: what a search may set each hyperparameter to, read from YAML; settings drawn from them."""

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
from dtbench.suite.loading import LARGEST_FILE, read_yaml

Kind = Literal["choices", "uniform", "log", "integers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Setting = Mapping[str, Any]  # hyperparameter -> value
_WRITE = "Write {choices: [...]}, {uniform: [a, b]}, {log: [a, b]} or {integers: [a, b]}."


@dataclass(frozen=True, slots=True)
class Range:
    """What one hyperparameter may be: one of the choices, or a number from the lowest to the highest."""

    kind: Kind
    values: tuple[Any, ...]  # the choices, or lowest and highest

    def draw(self, rng: np.random.Generator) -> Any:
        """One value: evenly over choices, numbers, logarithms of numbers or whole numbers, both ends included."""
        if self.kind == "choices":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integers":
            return int(rng.integers(low, high + 1))
        return self.at(float(rng.random()))

    def at(self, share: float) -> float:
        """The number that lies so far from the lowest to the highest, `rounded`."""
        low, high = self.values
        if self.kind == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """With six digits, which people can type again, and still within the range."""
        low, high = self.values
        return float(min(max(float(f"{value:.6g}"), low), high))

    def examples(self) -> tuple[Any, ...]:
        """Values that a hyperparameter of the right type takes: all choices, or both ends and one between."""
        return self.values if self.kind in ("choices", "integers") else (*self.values, self.at(0.377))

    @property
    def size(self) -> float:
        """How many different values there are."""
        if self.kind == "integers":
            return float(self.values[1] - self.values[0] + 1)
        return float(len(self.values)) if self.kind == "choices" else math.inf


Space = Mapping[str, Range]


def space_names() -> list[str]:
    """The spaces in ./sweeps/spaces and those that dtbench ships."""
    return sorted(Path(name).stem for name in package_data.names("sweeps/spaces") if name.endswith((".yaml", ".yml")))


def load_space(name: str) -> Space:
    """The space of this name, or at this path.

    Raises UnknownName where there is none or where something in it has an unknown name, InvalidValue for the rest.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in space_names():
            raise UnknownName("search space", name, space_names(), hint="Your own: --space path/to/space.yaml.")
        path = package_data.find("sweeps/spaces", f"{name}.yaml")
    elif not path.is_file():
        packaged = path.parent == Path("sweeps/spaces") and path.name in package_data.names("sweeps/spaces")
        if not packaged:
            raise UnknownName("search space file", name, space_names())
        path = package_data.find("sweeps/spaces", path.name)
    try:
        content = path.read_bytes()
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE} bytes, which no space needs")
        document = read_yaml(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{path} cannot be read as YAML: {error}. {_WRITE}") from error
    return read_space(document, str(path))


def read_space(document: Any, where: str) -> Space:
    """A space from plain values: hyperparameter -> {kind: [...]}; `where` is said in errors."""
    if not isinstance(document, Mapping) or not document:
        raise InvalidValue(f"{where} must be a mapping of hyperparameters to ranges; it is {document!r:.60}. {_WRITE}")
    return {str(name): _range(said, f"{where}: {name}") for name, said in document.items()}


def plain_space(space: Space) -> dict[str, dict[str, list[Any]]]:
    """The space as `read_space` reads it."""
    return {name: {found.kind: list(found.values)} for name, found in space.items()}


def check_space(space: Space, algorithm: str, settled: Setting) -> None:
    """Raise UnknownName or InvalidValue for what the algorithm, with the contender's own settings, cannot be.

    The first values of all hyperparameters are tried together, all others one at a time.
    """
    first = {name: found.examples()[0] for name, found in space.items()}
    registry.make_algorithm(algorithm, {**settled, **first})
    for name, found in space.items():
        for value in found.examples():
            registry.make_algorithm(algorithm, {**settled, **first, name: value})


def grid(space: Space, seed: int) -> list[Setting]:
    """Every combination of choices; InvalidValue where one has a range.

    In random order: early stopping compares a setting with those before it, and neighbours in a grid are much alike.
    """
    for name, found in space.items():
        if found.kind != "choices":
            raise InvalidValue(f"{name}: {found.kind} cannot be tried in full: a grid takes choices alone.")
    values = (found.values for found in space.values())
    settings = [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]
    return [settings[place] for place in _generator(seed, 12).permutation(len(settings))]


def draw(space: Space, count: int, seed: int) -> list[Setting]:
    """So many different settings at random; more of them begin with the same ones. InvalidValue for too many."""
    there = math.prod(found.size for found in space.values())
    if count > there:
        raise InvalidValue(f"{count} samples of a space of {there:.0f} settings: say --searcher grid.")
    return list(itertools.islice(_different(space, seed), count))


def _different(space: Space, seed: int) -> Iterator[Setting]:
    seen: list[Setting] = []
    for place in itertools.count():
        rng = _generator(seed, 11, place)
        setting = {name: space[name].draw(rng) for name in sorted(space)}
        setting = {name: setting[name] for name in space}
        if setting not in seen:
            seen.append(setting)
            yield setting


def _generator(*keys: int) -> np.random.Generator:
    """As `dtbench.data.randomness.generator`, whose module loads torch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(keys)))


def _range(said: Any, where: str) -> Range:
    if not isinstance(said, Mapping) or len(said) != 1:
        raise InvalidValue(f"{where} is {said!r:.60}. {_WRITE}")
    ((kind, values),) = said.items()
    if kind not in KINDS:
        raise UnknownName(f"range of {where}", str(kind), KINDS)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidValue(f"{where}: {kind} wants a list, not {values!r:.60}. {_WRITE}")
    found = _choices(values, where) if kind == "choices" else _ends(kind, values, where)
    return Range(kind, found)


def _choices(values: Sequence[Any], where: str) -> tuple[Any, ...]:
    if not values:
        raise InvalidValue(f"{where}: no choices. Name one or more.")
    for place, value in enumerate(values):
        _no_text_for_a_number(value, where)
        if value in values[:place] and any(value is one or type(value) is type(one) for one in values[:place]):
            raise InvalidValue(f"{where}: the choice {value!r} is there twice.")
    return tuple(values)


def _ends(kind: Kind, values: Sequence[Any], where: str) -> tuple[Any, ...]:
    for value in values:
        _no_text_for_a_number(value, where)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not numbers or not all(math.isfinite(value) for value in values):
        raise InvalidValue(f"{where}: {kind} wants two numbers, the lowest and the highest, not {values!r:.60}.")
    low, high = values
    if kind == "integers" and not whole:
        raise InvalidValue(f"{where}: integers wants whole numbers, not {values!r:.60}.")
    if low >= high:
        raise InvalidValue(f"{where}: {kind} goes from {low} to {high}: say the lower one first.")
    if kind == "log" and low <= 0:
        raise InvalidValue(f"{where}: log begins at {low}: it must be above 0.")
    return (low, high) if kind == "integers" else (float(low), float(high))


def _no_text_for_a_number(value: Any, where: str) -> None:
    """YAML 1.1 takes 1e-4 for text."""
    if isinstance(value, str):
        try:
            meant = float(value)
        except ValueError:
            return
        raise InvalidValue(f"{where}: {value!r} is text to YAML: write {meant!r}, or 1.0e-4 with a dot.")
