"""Extending archived results: what two plans of a suite differ in, and the trials of both as one suite."""

from collections.abc import Iterable
from typing import Any

from dtbench.analysis.results import SuiteResults, joined, score_table, spec_values
from dtbench.ledger.trial_spec import TrialSpec

_LABELS = ("suite", "contender", "resources", "seed", "dataset_source", "open_from", "key")
_OF_TASK = ("task_version", "dataset_digest", "task_options")  # what all contenders of one table share


def difference(theirs: Iterable[TrialSpec], ours: Iterable[TrialSpec]) -> str:
    """Return the first thing in which two plans differ, "" where their trials belong in one table.

    Contenders that only one of them has must learn from the same data, and be judged by as many episodes.
    """
    known = {(spec.task, spec.contender): spec for spec in theirs}
    tasks = {task: spec for (task, _), spec in known.items()}
    found = [spec for spec in {spec.cell: spec for spec in ours}.values() if spec.task in tasks]
    if not found:
        return "no task in common"
    for spec in found:
        there, here = _settings(tasks[spec.task]), _settings(spec)
        names: Iterable[str] = [name for name in here if name.startswith(_OF_TASK)] + ["evaluation.episodes"]
        if same := known.get((spec.task, spec.contender)):
            there, names = _settings(same), here
        for name in names:
            if there.get(name) != here[name]:
                values = f"{there.get(name)!s:.40} there, {here[name]!s:.40} here"
                return f"{spec.contender} on {spec.task}: {name} is {values}"
    return ""


def extended(archive: SuiteResults, found: SuiteResults) -> SuiteResults:
    """Return the trials of both as results of the suite of `found`; what the archive has finished stays as it is."""
    planned = (*archive.suite.get("trials", ()), *found.suite.get("trials", ()))
    trials = {(trial["contender"], trial["key"]): trial for trial in planned}
    records = {(record.spec.contender, record.spec.key): record for record in (*found.records, *archive.records)}
    finished = [records[key] for key in trials if key in records]
    finished += [record for key, record in records.items() if key not in trials]
    waiting = {(one.spec.contender, one.spec.key): one for one in (*archive.unfinished, *found.unfinished)}
    suite = {
        **archive.suite,
        **found.suite,
        "tasks": list(dict.fromkeys([*archive.suite.get("tasks", ()), *found.suite.get("tasks", ())])),
        "seeds": sorted({*archive.suite.get("seeds", ()), *found.suite.get("seeds", ())}),
        "contenders": {**archive.suite.get("contenders", {}), **found.suite.get("contenders", {})},
        "trials": list(trials.values()),
    }
    others = {(one.spec.contender, one.spec.key): one for one in (*found.superseded, *archive.superseded)}
    superseded = tuple(one for key, one in others.items() if key not in records)
    episodes = joined({record.spec.key: record.episodes() for record in (*finished, *superseded)})
    unfinished = tuple(one for key, one in waiting.items() if key not in records)
    scores = score_table(finished, episodes)
    return SuiteResults(suite, tuple(finished), unfinished, scores, episodes, found.damaged, superseded)


def _settings(spec: TrialSpec) -> dict[str, Any]:
    """Return what decides a trial's outcome but for its seed."""
    values = {name: value for name, value in spec_values(spec).items() if name not in _LABELS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
