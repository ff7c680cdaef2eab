"""Which data are generated look-alikes of those that published numbers are of."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

from dtbench.suite.loading import read_document, suite_names

GENERATED = "generated"
_NAMES = {"d4rl": "D4RL", "dqn-replay": "DQN-replay"}


def lookalike_warning(sources: Mapping[str, str]) -> str:
    """Return what a reader must know of data that are not those of the papers; "" where there are none.

    `sources` say by task where its data came from.
    """
    fake = lookalikes(sources)
    if not fake:
        return ""
    original = originals(fake.values())
    where = "" if len(fake) == len(sources) else f" on {', '.join(fake)}"
    return (
        f"GENERATED DATA{where}: a look-alike of {original} made by dtbench, not {original}. "
        "No number here is comparable with a published one."
    )


def lookalikes(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the tasks whose data are generated although published numbers are of others, with the others' name."""
    official = _official(Path.cwd())
    return {task: official[task] for task, source in sources.items() if GENERATED in source and task in official}


def originals(names: Iterable[str]) -> str:
    """Return the names of data as people write them."""
    return " and ".join(_NAMES.get(name, name) for name in dict.fromkeys(names))


@functools.cache  # of the suites in ./sweeps and in the package
def _official(directory: Path) -> dict[str, str]:
    """Return the data that published numbers of a task are of, by task."""
    found: dict[str, str] = {}
    for name in suite_names():
        document = read_document(name)
        named = [task for table in document.get("published") or () for task in (table.get("datasets") or {})]
        tables = [table.get("data") for table in document.get("published") or () if table.get("data")]
        if tables:
            found |= dict.fromkeys([*(document.get("tasks") or ()), *named], str(tables[0]))
    return found
