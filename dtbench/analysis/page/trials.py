"""The trials behind the numbers of a page, as plain JSON: what a reader sees who opens a cell."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dtbench.analysis.results import headline_rows
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.ledger.store import TrialRecord, Unfinished
from dtbench.ledger.trial_spec import TrialSpec

CURVE_POINTS = 60  # of each metric, for suites of up to MANY_TRIALS; none for larger ones
MANY_TRIALS = 1000
ERROR_LINES = 12  # the end of a traceback

Json = dict[str, Any]


def trial_data(analysis: SuiteAnalysis) -> Json:
    """Return cells, trials and provenances, each once; nan becomes None."""
    results = analysis.results
    finals = {(row["contender"], row["trial"]): row for row in analysis.finals.to_dict("records")}
    curves = _curves(analysis.scores, analysis.finals)
    provenances: dict[str, int] = {}
    cells: dict[str, Json] = {}
    detailed = len(results.records) <= MANY_TRIALS
    trials = []
    for record in results.records:
        key = (record.spec.contender, record.spec.key)
        cells.setdefault(record.spec.cell, _cell(record.spec, record.result))
        shared = json.dumps(_shared(record.provenance), sort_keys=True)
        trials.append(
            {
                **_trial(record.spec, "done" if key in finals else "nan"),
                **_outcome(finals.get(key, {}), record),
                "curve": curves.get(key, []),
                "metrics": _metrics(record) if detailed else {},
                "from": provenances.setdefault(shared, len(provenances)),
            }
        )
    for missing in results.unfinished:
        cells.setdefault(missing.spec.cell, _cell(missing.spec, {}))
        trials.append({**_trial(missing.spec, missing.state), "error": _end(missing)})
    return {"cells": cells, "trials": trials, "provenance": [json.loads(text) for text in provenances]}


def _cell(spec: TrialSpec, result: Mapping[str, Any]) -> Json:
    learner = {
        name: result[name] for name in ("action_mode", "context", "parameters") if result.get(name) not in (None, "")
    }
    return {
        "task": spec.task,
        "contender": spec.contender,
        "algorithm": spec.algorithm,
        "version": spec.algorithm_version,
        "budget": spec.train_steps,
        "hyperparameters": dict(spec.hyperparameters),
        "evaluation": {
            "episodes": spec.evaluation.episodes,
            "every": spec.evaluation.every,
            "targets": list(spec.evaluation.targets),
            "sweep": list(spec.evaluation.sweep),
            "action_mode": spec.evaluation.action_mode,
        },
        "task_options": dict(spec.task_options),
        "learner": learner,
    }


def _trial(spec: TrialSpec, state: str) -> Json:
    return {"key": spec.key, "cell": spec.cell, "seed": spec.seed, "state": state}


def _outcome(row: Mapping[str, Any], record: TrialRecord) -> Json:
    numbers = {name: _number(row.get(name)) for name in ("score", "return_mean", "target", "step", "episodes")}
    times = {name: record.provenance.get(name) for name in ("started", "finished")}
    return {**numbers, **times, "seconds": _number(record.result.get("seconds"))}


def _curves(scores: pd.DataFrame, finals: pd.DataFrame) -> dict[tuple[str, str], list[list[float | None]]]:
    rows = headline_rows(scores, finals).sort_values("step", kind="stable")
    found: dict[tuple[str, str], list[list[float | None]]] = {}
    for contender, trial, step, score in zip(
        rows["contender"], rows["trial"], rows["step"], rows["score"], strict=True
    ):
        found.setdefault((contender, trial), []).append([int(step), _number(score)])
    return found


def _metrics(record: TrialRecord) -> dict[str, list[list[float | None]]]:
    """Return every metric over training, thinned to CURVE_POINTS."""
    logged = record.metrics()
    if "step" not in logged:
        return {}
    thinned = logged.iloc[:: max(1, math.ceil(len(logged) / CURVE_POINTS))]
    names = [name for name in sorted(thinned) if name != "step"]
    return {
        name: [[int(step), _number(value)] for step, value in zip(thinned["step"], thinned[name], strict=True)]
        for name in names
    }


def _shared(provenance: Mapping[str, Any]) -> Json:
    """Return what trials that ran alike have in common."""
    named = ("commit", "versions", "device", "platform", "threads", "dataset")
    return {name: provenance[name] for name in named if name in provenance}


def _end(missing: Unfinished) -> str:
    return "\n".join(missing.error.strip().splitlines()[-ERROR_LINES:])


def _number(value: Any) -> float | None:
    """Return seven significant digits; None for nan and None."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return float(f"{float(value):.7g}")
