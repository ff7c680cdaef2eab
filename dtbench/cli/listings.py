"""`dtbench list`: the names of suites, tasks and algorithms, and the hyperparameters of an algorithm."""

from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding

from dtbench import registry
from dtbench.cli.progress import say, show_plain
from dtbench.meanings import field_meanings
from dtbench.suite.loading import suite_names
from dtbench.suite.planning import load_suite


def suites() -> list[dict[str, Any]]:
    """Return the suites with their titles, default presets and sizes."""
    return [
        {
            "name": name,
            "title": suite.title,
            "preset": suite.preset,
            "tasks": suite.tasks,
            "contenders": list(suite.contenders),
            "seeds": suite.seeds,
        }
        for name in suite_names()
        for suite in [load_suite(name)]
    ]


def tasks() -> list[dict[str, Any]]:
    """Return the tasks with their domains and the sources of their data, the best first."""
    return [
        {"name": name, "domain": domain, "description": task.description, "score": task.score_name, "sources": sources}
        for domain, names in registry.tasks_by_domain().items()
        for name in names
        for task in [registry.make_task(name)]
        for sources in [[source.name for source in task.sources] or ["generated"]]
    ]


def algorithms() -> list[dict[str, Any]]:
    """Return the registered algorithms, each as `algorithm` has it."""
    return [algorithm(name) for name in registry.algorithm_names()]


def algorithm(name: str) -> dict[str, Any]:
    """Return an algorithm's hyperparameters with their defaults and meanings, and its presets."""
    defaults, meanings = registry.all_hyperparameters(name, {}), field_meanings(registry.algorithm_class(name))
    return {
        "name": name,
        "description": _first_line(name),
        "hyperparameters": defaults,
        "meanings": {key: meanings.get(key, "") for key in defaults},
        "presets": {preset: dict(values) for preset, values in registry.algorithm_presets(name).items()},
    }


def list_suites() -> None:
    """Print the suites with their default preset and size."""
    rows = []
    for suite in suites():
        counts = (f"{len(suite[part])} {part}" for part in ("tasks", "contenders", "seeds"))
        rows.append([suite["name"], f"{suite['title']} ({' x '.join(counts)}, preset {suite['preset'] or 'none'})"])
    show_plain(rows)


def list_tasks() -> None:
    """Print the tasks by domain and by the sources of their data, the best first."""
    console = Console(highlight=False, markup=False, emoji=False)
    domains: dict[str, dict[str, list[str]]] = {}
    for task in tasks():
        by_source = domains.setdefault(task["domain"], {})
        by_source.setdefault(", else ".join(task["sources"]), []).append(task["name"])
    for domain, by_source in domains.items():
        say(f"{domain}: {sum(map(len, by_source.values()))} tasks", style="bold")
        for sources_named, names in by_source.items():
            say(f"  data: {sources_named}")
            console.print(Padding(Columns(names, padding=(0, 2), column_first=True, equal=True), (0, 0, 0, 4)))


def list_algorithms() -> None:
    """Print the registered algorithms and their presets of hyperparameters."""
    for name in registry.algorithm_names():
        say(f"{name:<24} {_first_line(name)}")
        _list_presets(name)


def list_algorithm(name: str) -> None:
    """Print an algorithm's hyperparameters, their defaults and meanings, and its presets."""
    found = algorithm(name)
    say(f"{name}: {found['description']}")
    defaults, meanings = found["hyperparameters"], found["meanings"]
    show_plain([[key, str(value), meanings[key]] for key, value in defaults.items()], indent=4)
    _list_presets(name)


def _list_presets(name: str) -> None:
    for preset, values in registry.algorithm_presets(name).items():
        differences = ", ".join(f"{key}={value}" for key, value in values.items())
        say(f"    preset {preset:<12} {differences or 'the defaults'}")


def _first_line(name: str) -> str:
    docstring = registry.algorithm_class(name).__doc__ or ""
    return docstring.strip().splitlines()[0]
