"""Superseded trials: finished ones of a suite's earlier configurations, which are listed apart and never averaged."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults, score_table, spec_values
from dtbench.errors import decimals_of
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialSpec

RULE = (
    "A row has the newest configuration of its contender that was planned. Finished trials of earlier ones (other "
    "settings, data, environment or code) are superseded: they are listed here and count in no other table or figure."
)
_LABELS = ("suite", "contender", "task", "seed", "resources", "open_from", "key", "task_options.file")
_OF_TASK = ("task", "dataset", "environment", "evaluation")
_MOST = 3  # differences that a label names


def every_score(results: SuiteResults) -> pd.DataFrame:
    """Return the scores of all trials; superseded ones are contenders that their differences name."""
    if not results.superseded:
        return results.scores
    return score_table([*results.records, *labelled(results)], results.episodes)


def labelled(results: SuiteResults) -> list[TrialRecord]:
    """Return the superseded trials under names such as "DT (learning_rate=0.0001)", each of one configuration."""
    known = {(spec.task, spec.contender) for spec in _current(results)}
    cells: dict[tuple[str, str], str] = {}
    found = []
    for record in results.superseded:
        spec = record.spec
        label = f"{spec.contender} ({difference(results, spec) or 'superseded'})"
        if (spec.task, label) in known or cells.setdefault((spec.task, label), spec.cell) != spec.cell:
            label = f"{label[:-1]}, {spec.cell[:6]})"
        found.append(record.relabelled(spec.labelled(suite=results.name, contender=label)))
    return found


def apart(results: SuiteResults) -> SuiteResults:
    """Return the superseded trials as results of their own, under the names of `labelled`.

    Each is read at the target return that its contender's row stands for now.
    """
    records = tuple(labelled(results))
    documents = results.suite.get("contenders") or {}
    names = {new.spec.contender: old.spec.contender for new, old in zip(records, results.superseded, strict=True)}
    known = {**documents, **{new: documents[old] for new, old in names.items() if old in documents}}
    return replace(
        results,
        suite={**results.suite, "contenders": known},
        records=records,
        superseded=(),
        unfinished=(),
        scores=score_table(records, results.episodes),
    )


def difference(results: SuiteResults, spec: TrialSpec) -> str:
    """Return what a superseded trial has that the current configuration of its contender has not."""
    values, current = spec_values(spec), _counterpart(results, spec)
    different = [name for name, value in values.items() if name not in _LABELS and current.get(name, value) != value]
    shown = [f"{name.removeprefix('hyperparameters.')}={_short(values[name])}" for name in different[:_MOST]]
    return ", ".join([*shown, "..."] if len(different) > _MOST else shown)


def sentences(results: SuiteResults) -> Iterator[str]:
    """Yield a line for each superseded configuration: its name, task, mean score and number of seeds."""
    for label, task, scores in cells(results):
        mean = scores.mean()
        yield f"superseded: {label} on {task}: {mean:.{decimals_of(mean)}f} ({len(scores)})"


def cells(results: SuiteResults) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield the label, the task and the final scores of each superseded configuration."""
    for (label, task), rows in final_rows(apart(results)).groupby(["contender", "task"], sort=False):
        yield str(label), str(task), rows["score"]


def _current(results: SuiteResults) -> Iterator[TrialSpec]:
    yield from itertools.chain((record.spec for record in results.records), results.not_run)


def _counterpart(results: SuiteResults, spec: TrialSpec) -> Mapping[str, Any]:
    """Return the values to compare with: of its task and contender now, else those that the task or contender has."""
    specs = list(_current(results))
    for one in specs:
        if (one.task, one.contender) == (spec.task, spec.contender):
            return spec_values(one)
    of_task = next((spec_values(one) for one in specs if one.task == spec.task), {})
    of_contender = next((spec_values(one) for one in specs if one.contender == spec.contender), {})
    return {
        **{name: value for name, value in of_task.items() if name.startswith(_OF_TASK)},
        **{name: value for name, value in of_contender.items() if not name.startswith(_OF_TASK)},
    }


def _short(value: Any) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
