"""How many settings recorded searches tried for each contender: the effort behind a score."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from dtbench.analysis.headline import chosen_target
from dtbench.ledger.names import current_hyperparameters
from dtbench.tuning.search import SearchRecord

UNEQUAL = "unequal tuning"  # how the reason begins that leaves a pair undecided


def unequal(kind: str, ours: int, theirs: int) -> str:
    """Return why so many settings tried on either side forbid a verdict of this kind; "" where they do not.

    Who is ahead may have been searched less than the other, but not more: searching raises a score, so the difference
    would in part be one of effort. Who matches must have been searched as much.
    """
    wrong = {"above": ours > theirs, "below": ours < theirs, "match": ours != theirs}
    return f"{UNEQUAL} ({ours} settings tried, {theirs} of the rival)" if wrong.get(kind) else ""


def settings_tried(
    searches: Iterable[SearchRecord], suite: Mapping[str, Any], averages: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], int]:
    """Return the number of different settings by (task, contender) of a suite; absent where there are none.

    A search counts for the tasks that it was made on, for draws of the same data, and for averages over any of these.
    Where the contender's `headline_target` was chosen too, pairs of a setting and a target return are counted.
    """
    draws = tuple(suite.get("draws") or ())
    found: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for record in searches:
        config = record.config
        if config.suite != suite.get("name") or config.preset != suite.get("preset", config.preset):
            continue
        patterns = [*config.tasks, *(p for p in draws if any(fnmatchcase(task, p) for task in config.tasks))]
        reached = [task for task in suite.get("tasks") or config.tasks if any(fnmatchcase(task, p) for p in patterns)]
        for task in reached:
            above = [name for name, over in averages.items() if task in over]
            tried = set(_tried(record, chosen=chosen_target(suite, config.contender, task) is not None))
            for name in (task, *above):
                found.setdefault((name, config.contender), set()).update(tried)
    return {cell: len(settings) for cell, settings in found.items()}


def _tried(record: SearchRecord, *, chosen: bool) -> Iterator[tuple[str, int]]:
    """Yield every setting with 0, or where a target was `chosen` with the place of each target that was tried."""
    config = record.config
    targets = max(1, *map(len, config.targets.values())) if chosen else 1
    for one in record.candidates:
        setting = json.dumps(current_hyperparameters(config.algorithm, one.hyperparameters), sort_keys=True)
        yield from ((setting, place) for place in range(targets))
