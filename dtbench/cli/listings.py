"""What exists, on the terminal: suites, tasks, algorithms, finished trials."""

from pathlib import Path

from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding

from dtbench import registry
from dtbench.cli.progress import say, trial_name
from dtbench.errors import UnknownName
from dtbench.ledger.remote import name_of
from dtbench.ledger.store import EPISODES, Ledger, read_episodes
from dtbench.suite.loading import suite_names
from dtbench.suite.planning import load_suite


def list_suites() -> None:
    """Suites with their presets' default and size."""
    for name in suite_names():
        suite = load_suite(name)
        size = f"{len(suite.tasks)} tasks x {len(suite.contenders)} contenders x {len(suite.seeds)} seeds"
        print(f"{name:<24} {suite.title} ({size}, preset {suite.preset or 'none'})")


def list_tasks() -> None:
    """Tasks, domain by domain, and the sources that their data may come from, the best first."""
    console = Console(highlight=False)
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
    """Registered algorithms, and the sets of hyperparameters that they have names for."""
    for name in registry.algorithm_names():
        found = registry.algorithm_class(name)
        say(f"{name:<24} {(found.__doc__ or '').strip().splitlines()[0]}")
        for preset, values in registry.algorithm_presets(name).items():
            differences = ", ".join(f"{key}={value}" for key, value in values.items())
            say(f"    preset {preset:<12} {differences or 'the defaults'}")


def list_runs(results: Path) -> None:
    """Finished trials of a ledger."""
    records = list(Ledger(results / "runs").records())
    for record in records:
        print(f"{record.spec.key}  {trial_name(record.spec):<48} {record.result.get('seconds', 0.0):>8.1f} s")
    print(f"{len(records)} finished trials in {name_of(results)}")


def show_trial(key: str, results: Path) -> None:
    """One trial in full."""
    folders = Ledger(results / "runs").folders()
    found = [own for own in folders if own.startswith(key)]
    if len(found) != 1:
        raise UnknownName("trial" if not found else "trial, ambiguous:", key, folders)
    folder = folders[found[0]]
    for name in ("spec.json", "result.json", "provenance.json", "error.txt"):
        if (folder / name).exists():
            print(f"== {folder / name}\n{(folder / name).read_text(errors='replace').rstrip()}")
    if (folder / EPISODES).exists():
        episodes = read_episodes(folder / EPISODES)
        grouped = episodes.groupby(["step", "target"], dropna=False)[["return", "length", "score"]].mean()
        print(f"== means over evaluation episodes\n{grouped.to_string()}")
