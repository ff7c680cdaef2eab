"""`dtbench list`: the names of suites, tasks and algorithms."""

from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding

from dtbench import registry
from dtbench.cli.progress import say, show_plain
from dtbench.suite.loading import suite_names
from dtbench.suite.planning import load_suite


def list_suites() -> None:
    """Print the suites with their default preset and size."""
    rows = []
    for name in suite_names():
        suite = load_suite(name)
        size = f"{len(suite.tasks)} tasks x {len(suite.contenders)} contenders x {len(suite.seeds)} seeds"
        rows.append([name, f"{suite.title} ({size}, preset {suite.preset or 'none'})"])
    show_plain(rows)


def list_tasks() -> None:
    """Print the tasks by domain and by the sources of their data, the best first."""
    console = Console(highlight=False, markup=False, emoji=False)
    for domain, names in registry.tasks_by_domain().items():
        by_source: dict[str, list[str]] = {}
        for name in names:
            sources = [source.name for source in registry.make_task(name).sources] or ["generated"]
            by_source.setdefault(", else ".join(sources), []).append(name)
        say(f"{domain}: {len(names)} tasks", style="bold")
        for sources_named, tasks in by_source.items():
            say(f"  data: {sources_named}")
            console.print(Padding(Columns(tasks, padding=(0, 2), column_first=True, equal=True), (0, 0, 0, 4)))


def list_algorithms() -> None:
    """Print the registered algorithms and their presets of hyperparameters."""
    for name in registry.algorithm_names():
        docstring = registry.algorithm_class(name).__doc__ or ""
        say(f"{name:<24} {docstring.strip().splitlines()[0]}")
        for preset, values in registry.algorithm_presets(name).items():
            differences = ", ".join(f"{key}={value}" for key, value in values.items())
            say(f"    preset {preset:<12} {differences or 'the defaults'}")
