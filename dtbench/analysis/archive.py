"""Results as a repository keeps them: `<suite>.csv` for readers, `<suite>/` with all that a report is rebuilt from.

`<suite>/suite.json` has the suite as it ran and the provenances, `trials.jsonl` a line a trial (spec, state, result,
traceback), `episodes.parquet` every evaluation episode, `metrics.parquet` what was logged while learning, and
`remarks.md`, where there is one, what people have to say about the results.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.analysis.scores import SuiteResults, score_table, scores_text, write_scores
from dtbench.analysis.trial_table import TrialTable, joined
from dtbench.errors import DAMAGED, LedgerError, UnknownName
from dtbench.ledger import (
    TrialRecord,
    Unfinished,
    write_bytes,
    write_frame,
    write_json,
)
from dtbench.ledger_shapes import check_file_name, check_labels, check_provenance, check_result, check_suite
from dtbench.spec import TrialSpec

REMARKS = "remarks"  # `<suite>/remarks.md`: what people wrote about the results, shown with them
_TIMES = ("started", "finished")  # what differs between the provenances of trials that ran alike


def archived(folder: Path) -> list[str]:
    """The names of the suites that are kept in a folder such as results/scores."""
    return sorted(path.parent.name for path in folder.glob("*/suite.json"))


def write_archive(results: SuiteResults, folder: Path) -> None:
    """Write the tidy table and the archive of a suite, under the suite's name."""
    check_file_name(results.name)
    place = folder / results.name
    place.mkdir(parents=True, exist_ok=True)
    provenances: dict[str, int] = {}  # as JSON -> its place
    done = [_line_of(record, provenances) for record in results.records]
    waiting = [_line_of_unfinished(trial) for trial in results.unfinished]
    about = {key: value for key, value in results.suite.items() if key not in ("trials", REMARKS)}
    lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in (*done, *waiting))
    metrics = joined({record.spec.key: record.metrics() for record in results.records})
    write_frame(place / "episodes.parquet", results.episodes.rows)
    write_frame(place / "metrics.parquet", metrics.rows)
    write_bytes(place / "trials.jsonl", lines.encode())
    write_json(
        place / "suite.json",
        {"suite": about, "provenances": [json.loads(text) for text in provenances]},
        sort_keys=False,
    )
    write_scores(results.scores, folder / f"{results.name}.csv")


def read_archive(folder: Path, name: str) -> SuiteResults:
    """What `write_archive` wrote.

    Raises UnknownName for a suite that is not there, and LedgerError, naming the file, where one is damaged or where
    the digits of `<suite>.csv` are not those of the episodes.
    """
    if name not in archived(folder):
        raise UnknownName(f"suite in {folder}", name, archived(folder))
    place = folder / name
    about = _checked(place / "suite.json", lambda path: json.loads(path.read_text()))
    lines = _checked(place / "trials.jsonl", lambda path: [json.loads(line) for line in path.read_text().splitlines()])
    episodes = _checked(place / "episodes.parquet", lambda path: TrialTable(pd.read_parquet(path)))
    metrics = _checked(place / "metrics.parquet", lambda path: TrialTable(pd.read_parquet(path)))
    remarks = place / f"{REMARKS}.md"
    try:
        check_suite(about["suite"])
        records = tuple(_record(line, about["provenances"], episodes, metrics) for line in _done(lines))
        unfinished = tuple(
            Unfinished(_spec(line), line["state"], line["error"], str(line.get("cause", "")))
            for line in lines
            if line["state"] != "done"
        )
        suite = {**about["suite"], "name": name, "trials": [line["spec"] for line in lines]}
        if remarks.exists():
            suite[REMARKS] = _checked(remarks, lambda path: path.read_text(encoding="utf-8"))
        results = SuiteResults(suite, records, unfinished, score_table(records, episodes), episodes)
    except DAMAGED as error:
        raise LedgerError(_damaged(place, f"{type(error).__name__} {error}")) from error
    _check_digits(results, folder / f"{name}.csv")
    return results


def _line_of_unfinished(trial: Unfinished) -> dict[str, Any]:
    line = {"spec": trial.spec.to_json(), "state": trial.state, "error": trial.error}
    return {**line, "cause": trial.cause} if trial.cause else line


def _line_of(record: TrialRecord, provenances: dict[str, int]) -> dict[str, Any]:
    shared = {key: value for key, value in record.provenance.items() if key not in _TIMES}
    place = provenances.setdefault(json.dumps(shared, sort_keys=True), len(provenances))
    line = {"spec": record.spec.to_json(), "state": "done", "result": dict(record.result), "provenance": place}
    line |= {key: record.provenance[key] for key in _TIMES if key in record.provenance}
    inspection = record.inspection()
    return {**line, "inspection": dict(inspection)} if inspection else line


def _done(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["state"] == "done"]


def _record(
    line: Mapping[str, Any],
    provenances: list[Mapping[str, Any]],
    episodes: TrialTable,
    metrics: TrialTable,
) -> TrialRecord:
    spec = _spec(line)
    if spec.key not in episodes:
        raise KeyError(f"no episodes of trial {spec.key}")
    provenance = {**provenances[line["provenance"]], **{key: line[key] for key in _TIMES if key in line}}
    check_result(line["result"])
    check_provenance(provenance)
    return TrialRecord(
        spec,
        line["result"],
        provenance,
        partial(episodes.of, spec.key),
        partial(metrics.of, spec.key),
        partial(dict, line.get("inspection") or {}),
    )


def _spec(line: Mapping[str, Any]) -> TrialSpec:
    spec = TrialSpec.from_json(line["spec"])
    check_labels(spec)
    if spec.key != line["spec"]["key"]:
        raise KeyError(f"trial {line['spec']['key']!r:.40} has the key {spec.key}")
    return spec


def _check_digits(results: SuiteResults, path: Path) -> None:
    """Raise LedgerError where the table that people read is not that of the episodes."""
    found = _checked(path, lambda file: file.read_text().splitlines())
    for number, (theirs, ours) in enumerate(zip(found, _rows(results), strict=False), start=1):
        if theirs != ours:
            raise LedgerError(f"{path}, line {number}: {theirs!r}, but the episodes beside it say {ours!r}.")
    if len(found) != len(_rows(results)):
        raise LedgerError(f"{path} has {len(found)} lines, but the episodes beside it make {len(_rows(results))}.")


def _rows(results: SuiteResults) -> list[str]:
    return scores_text(results.scores).splitlines()


def _checked(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except DAMAGED as error:
        raise LedgerError(_damaged(path, str(error) or type(error).__name__)) from error


def _damaged(path: Path, why: str) -> str:
    return f"cannot read {path}: {why}. Restore it, or write it again with `dtbench report` where its ledger is."
