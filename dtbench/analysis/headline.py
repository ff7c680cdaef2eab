"""The target return that a return-conditioned contender's row stands for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from dtbench.ledger.trial_spec import TrialSpec


def chosen_target(suite: Mapping[str, Any], contender: str, task: str) -> float | None:
    """Return the `headline_target` of a contender on a task in a suite's document; None where it states none."""
    document = (suite.get("contenders") or {}).get(contender) or {}
    changes = [one for pattern, one in (document.get("by_task") or {}).items() if fnmatchcase(task, pattern)]
    stated = [one["headline_target"] for one in (document, *changes) if "headline_target" in one]
    return None if not stated or stated[-1] is None else float(stated[-1])


def stated_targets(suite: Mapping[str, Any], contenders: Iterable[str], tasks: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each contender whose row on some task is not at the first target."""
    for contender in contenders:
        chosen = {task: target for task in tasks if (target := chosen_target(suite, contender, task)) is not None}
        if chosen:
            listed = ", ".join(f"{target:g} on {task}" for task, target in chosen.items())
            yield f"{contender} is asked for the target return that the suite states (headline_target): {listed}."


def headline_target(spec: TrialSpec, evaluated: Sequence[float], chosen: float | None = None) -> float:
    """Return the chosen target, else the first listed one, else any; nan where the trial takes none.

    Only of targets that were evaluated: `evaluated` has nan for a policy that is not conditioned on a return.
    """
    present = [target for target in evaluated if not np.isnan(target)]
    wanted = [chosen] if chosen is not None and chosen in present else []
    asked = [target for target in spec.evaluation.targets if target in present]
    return (wanted or asked or present or [np.nan])[0]
