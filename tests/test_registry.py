import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from dtbench import registry
from dtbench.errors import InvalidAlgorithm, InvalidValue, UnknownName

PLUGIN = """
from __future__ import annotations
import subprocess
from typing import Optional
from dataclasses import dataclass
from baselines.uniform_random import UniformRandomLearner


@dataclass(frozen=True)
class Mine:
    speed: float = 1.0

    def learner(self, dataset, *, seed, device):
        return UniformRandomLearner(int(dataset.action_space.n))


@dataclass
class Melting:
    def learner(self, dataset, *, seed, device):
        return None


@dataclass(frozen=True)
class Odd:
    context: Optional[int] = None
    sizes: tuple[int, ...] = (1, 2)
    limit: float = float("inf")

    def learner(self, dataset, *, seed, device):
        return None


@dataclass(frozen=True)
class Opaque:
    thing: subprocess.Popen = None

    def learner(self, dataset, *, seed, device):
        return None


class NoDataclass:
    pass


def task(name="key-to-door-1k", colour="red"):
    from dtbench import registry

    return registry.make_task(name)


def named(name, length=1):
    import dataclasses

    return dataclasses.replace(task(), name=f"{name} x {length}")


def no_task():
    return 3
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_file.py"
    path.write_text(PLUGIN)
    return path


def test_an_algorithm_may_be_a_file_in_the_working_directory(plugin: Path) -> None:
    assert registry.make_algorithm("my_file:Mine", {"speed": "2"}) == registry.make_algorithm(
        "my_file.py:Mine", {"speed": 2}
    )
    assert registry.algorithm_class(f"{plugin}:Mine") is registry.algorithm_class("my_file:Mine")


def test_changing_the_file_changes_its_version(plugin: Path) -> None:
    before = registry.algorithm_version("my_file:Mine")
    plugin.write_text(PLUGIN + "\n# faster\n")
    assert registry.algorithm_version("my_file:Mine") != before


def test_an_algorithm_may_be_a_module_that_is_installed() -> None:
    assert registry.algorithm_class("baselines.bc:BehaviorCloning").__name__ == "BehaviorCloning"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("my_fil:Mine", InvalidAlgorithm, "neither a file"),
        ("my_file:Min", UnknownName, "Mine"),
        ("my_file:Melting", InvalidAlgorithm, "frozen"),
        ("my_file:NoDataclass", InvalidAlgorithm, "dataclass"),
        ("cqll", UnknownName, "discrete_cql"),
    ],
)
def test_mistakes_in_an_algorithms_name_say_what_to_do(
    plugin: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.algorithm_class(name)


def test_a_hyperparameter_is_checked_by_name_and_type() -> None:
    with pytest.raises(UnknownName, match="learning_rate"):
        registry.make_algorithm("dt", {"learning_rat": 1})
    assert registry.make_algorithm("dt", {"dropout": 0.1}, dropout=0.2) == registry.make_algorithm("dt", dropout=0.2)
    with pytest.raises(UnknownName, match="learning_rate"):
        registry.make_algorithm("dt", learning_rat=1)
    with pytest.raises(InvalidValue, match="hidden_size"):
        registry.make_algorithm("dt", {"hidden_size": "broad"})


def test_tasks_are_listed_by_domain() -> None:
    found = registry.tasks_by_domain()
    assert found["key_to_door"][:2] == ["key-to-door-1k", "key-to-door-10k"]
    assert len(found["key_to_door"]) == 10  # five draws of either
    assert len(found["graph"]) == 5
    with pytest.raises(UnknownName, match="graph-0"):
        registry.make_task("graph-9")


def test_hyperparameters_survive_the_way_through_json(plugin: Path) -> None:
    plain = registry.all_hyperparameters("my_file:Odd", {"sizes": [3]})
    assert plain == {"context": None, "sizes": [3], "limit": float("inf")}
    again = registry.make_algorithm("my_file:Odd", json.loads(json.dumps(plain)))
    assert again == registry.make_algorithm("my_file:Odd", {"sizes": (3,)})


def test_hyperparameters_must_be_plain_values(plugin: Path) -> None:
    with pytest.raises(InvalidAlgorithm, match="plain values"):
        registry.make_algorithm("my_file:Opaque", {})


def test_a_task_takes_the_options_that_its_function_has(plugin: Path) -> None:
    assert registry.make_task("my_file:task", {"name": "key-to-door-10k"}).name == "key-to-door-10k"
    assert registry.make_task("my_file:task", name="key-to-door-10k").name == "key-to-door-10k"
    assert registry.make_task("my_file:task", {"name": "graph-0"}, name="graph-1").name == "graph-1"
    assert registry.make_task("my_file:task").name == registry.make_task("my_file:task", {}).name == "key-to-door-1k"


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("my_file:task", {"color": "blue"}, UnknownName, "Did you mean 'colour'"),
        ("hopper-medium-v2", {"step": 2000}, UnknownName, "Did you mean 'steps'"),
        ("hopper-medium-v2", {"physics": "d5rl"}, UnknownName, "Did you mean 'd4rl'"),
        ("graph-0", {"physics": "v4"}, UnknownName, "option of task graph-0 'physics'"),
        ("my_file:tsk", None, UnknownName, "task"),
        (3, None, InvalidValue, "int is no task's name"),
        ("my_file:no_task", None, InvalidValue, "returns a int"),
        ("minary:mujoco/hopper/medium-v0", None, InvalidAlgorithm, "minary"),
    ],
)
def test_mistakes_in_a_tasks_name_and_options_say_what_to_do(
    plugin: Path, name: str, options: dict[str, object] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.make_task(name, options)


def test_a_prefix_may_be_a_scheme_that_makes_tasks_of_any_name(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin.parent)
    point = EntryPoint("walks", "my_file:named", registry.SCHEMES)
    others = {group: registry._points(group) for group in (registry.ALGORITHMS, registry.DOMAINS)}
    monkeypatch.setattr(registry, "_points", lambda group: others.get(group, {"walks": point}))
    assert registry.make_task("walks:of/mine-v0").name == "walks:of/mine-v0 x 1"  # given its whole name
    assert registry.make_task("walks:of/mine-v0", {"length": 3}).name == "walks:of/mine-v0 x 3"
    with pytest.raises(UnknownName, match="Did you mean 'length'"):
        registry.make_task("walks:of/mine-v0", {"lenght": 3})


def test_minari_is_a_scheme() -> None:
    assert "minari" in {point.name for point in entry_points(group=registry.SCHEMES)}


def test_a_foreign_package_of_the_name_baselines_is_named(tmp_path: Path) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "__init__.py").write_text("")
    code = "from dtbench.registry import algorithm_class; algorithm_class('bc')"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    error = done.stderr.strip().splitlines()[-1]
    assert f"{tmp_path / 'baselines'} shadows dtbench's package `baselines`" in error
