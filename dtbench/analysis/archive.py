"""Results as a repository keeps them: `<suite>.csv` for readers, `<suite>/` with all that a report is rebuilt from.

`<suite>/suite.json` has the suite as it ran and the provenances, `trials.jsonl` a line a trial (spec, state, result,
traceback), `episodes.parquet` every evaluation episode, `metrics.parquet` what was logged while learning, and
`remarks.md`, where there is one, what people have to say about the results.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dtbench.analysis.results import (
    TRIAL,
    SuiteResults,
    TrialTable,
    joined,
    newest,
    score_table,
    scores_text,
    write_scores,
)
from dtbench.analysis.superseded import every_score
from dtbench.errors import LedgerError, UnknownName
from dtbench.ledger import schema
from dtbench.ledger.names import with_current_action_mode
from dtbench.ledger.store import TrialRecord, Unfinished, write_bytes, write_frame, write_json
from dtbench.ledger.tables import PARQUET_ERRORS, check_episodes, read_table
from dtbench.ledger.trial_spec import TrialSpec, TrialState

REMARKS = "remarks"  # `<suite>/remarks.md`: what people wrote about the results, shown with them
_ADVICE = "Restore it, or write it again with `dtbench report` where its ledger is."
_TIMES = ("started", "finished")  # what differs between the provenances of trials that ran alike


def archived(directory: Path) -> list[str]:
    """Return the names of the suites in a directory such as results/scores."""
    return sorted(path.parent.name for path in directory.glob("*/suite.json"))


def write_archive(results: SuiteResults, directory: Path) -> None:
    """Write the tidy table and the archive of a suite, under the suite's name."""
    schema.check_file_name(results.name)
    archive = directory / results.name
    archive.mkdir(parents=True, exist_ok=True)
    provenances: dict[str, int] = {}  # as JSON -> its index
    done = [_line_of(record, provenances) for record in results.records]
    done += [{**_line_of(record, provenances), "superseded": True} for record in results.superseded]
    waiting = [
        {"spec": one.spec.to_json(), "state": one.state, "error": one.error}
        | ({"cause": one.cause} if one.cause else {})
        for one in results.unfinished
    ]
    about = {key: value for key, value in results.suite.items() if key not in ("trials", "superseded", REMARKS)}
    lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in (*done, *waiting))
    metrics = joined({record.spec.key: record.metrics() for record in (*results.records, *results.superseded)})
    write_frame(archive / "episodes.parquet", results.episodes.rows)
    write_frame(archive / "metrics.parquet", metrics.rows)
    write_bytes(archive / "trials.jsonl", lines.encode())
    write_json(
        archive / "suite.json",
        {"suite": about, "provenances": [json.loads(text) for text in provenances]},
        sort_keys=False,
    )
    write_scores(every_score(results), directory / f"{results.name}.csv")


def read_archive(directory: Path, name: str) -> SuiteResults:
    """Return what `write_archive` wrote.

    Raises UnknownName for a suite that is not there, and LedgerError, naming the file, where one is damaged or where
    the digits of `<suite>.csv` are not those of the episodes.
    """
    if name not in archived(directory):
        raise UnknownName(f"suite in {directory}", name, archived(directory))
    archive = directory / name
    about = schema.read_mapping(archive / "suite.json", schema.ArchivedSuite, _ADVICE)
    lines = _checked(archive / "trials.jsonl", _read_lines)
    episodes = _checked(archive / "episodes.parquet", _read_episodes)
    metrics = _checked(archive / "metrics.parquet", _read_table)
    remarks = archive / f"{REMARKS}.md"
    rows = {(spec.contender, spec.key) for spec in newest(_planned(lines))[0]}
    finished = _checked(
        archive / "trials.jsonl",
        lambda _: tuple(_record(line, about["provenances"], episodes, metrics) for line in _done(lines)),
    )
    records = tuple(record for record in finished if (record.spec.contender, record.spec.key) in rows)
    superseded = tuple(record for record in finished if (record.spec.contender, record.spec.key) not in rows)
    unfinished = tuple(
        Unfinished(schema.parse_spec(line["spec"]), TrialState(line["state"]), line["error"], line.get("cause", ""))
        for line in lines
        if line["state"] != TrialState.DONE
    )
    suite = {**about["suite"], "name": name, "trials": [line["spec"] for line in lines if not line.get("superseded")]}
    if remarks.exists():
        suite[REMARKS] = _checked(remarks, lambda path: schema.regular(path).read_text(encoding="utf-8"))
    scores = _checked(archive / "episodes.parquet", lambda _: score_table(records, episodes))
    results = SuiteResults(suite, records, unfinished, scores, episodes, superseded=superseded)
    _check_digits(results, directory / f"{name}.csv")
    return results


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `trials.jsonl`, each with the fields that its state needs."""
    found = [
        schema.validated(json.loads(line), schema.ArchivedTrial)
        for line in schema.regular(path).read_text().splitlines()
    ]
    for line in found:
        schema.parse_spec(line["spec"])
        needed = ("result", "provenance") if line["state"] == TrialState.DONE else ("error",)
        if lacking := [name for name in needed if line.get(name) is None]:
            raise ValueError(f"trial {line['spec'].get('key')} has no {lacking[0]}")
    return found


def _read_table(path: Path) -> TrialTable:
    rows = read_table(path)
    if TRIAL not in rows:
        raise ValueError(f"it has no column {TRIAL}")
    return TrialTable(rows)


def _read_episodes(path: Path) -> TrialTable:
    table = _read_table(path)
    if len(table.rows):
        check_episodes(table.rows)
    return table


def _line_of(record: TrialRecord, provenances: dict[str, int]) -> dict[str, Any]:
    shared = {key: value for key, value in record.provenance.items() if key not in _TIMES}
    index = provenances.setdefault(json.dumps(shared, sort_keys=True), len(provenances))
    line = {
        "spec": record.spec.to_json(),
        "state": TrialState.DONE,
        "result": dict(record.result),
        "provenance": index,
    }
    line |= {key: record.provenance[key] for key in _TIMES if key in record.provenance}
    inspection = record.inspection()
    return {**line, "inspection": dict(inspection)} if inspection else line


def _planned(lines: Iterable[dict[str, Any]]) -> list[TrialSpec]:
    """Return the trials that were planned last."""
    return [schema.parse_spec(line["spec"]) for line in lines if not line.get("superseded")]


def _done(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["state"] == TrialState.DONE]


def _record(
    line: Mapping[str, Any], provenances: list[Mapping[str, Any]], episodes: TrialTable, metrics: TrialTable
) -> TrialRecord:
    spec = schema.parse_spec(line["spec"])
    if spec.key not in episodes:
        raise ValueError(f"no episodes of trial {spec.key}")
    if not 0 <= line["provenance"] < len(provenances):
        raise ValueError(f"no provenance of trial {spec.key}")
    provenance = {**provenances[line["provenance"]], **{key: line[key] for key in _TIMES if key in line}}
    return TrialRecord(
        spec,
        with_current_action_mode(line["result"]),
        provenance,
        partial(episodes.of, spec.key),
        partial(metrics.of, spec.key),
        partial(dict, line.get("inspection") or {}),
    )


def _check_digits(results: SuiteResults, path: Path) -> None:
    """Raise LedgerError where the table that people read is not that of the episodes."""
    found = _checked(path, lambda file: schema.regular(file).read_text().splitlines())
    for number, (theirs, ours) in enumerate(zip(found, _rows(results), strict=False), start=1):
        if theirs != ours:
            raise LedgerError(f"{path}, line {number}: {theirs!r}, but the episodes beside it say {ours!r}.")
    if len(found) != len(_rows(results)):
        raise LedgerError(f"{path} has {len(found)} lines, but the episodes beside it make {len(_rows(results))}.")


def _rows(results: SuiteResults) -> list[str]:
    return scores_text(every_score(results)).splitlines()


def _checked(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except (*PARQUET_ERRORS, RecursionError) as error:
        raise schema.unreadable(path, error, _ADVICE) from error


def planned_trials(scores: Path, name: str) -> list[TrialSpec]:
    """Return the trials of an archive that were planned last, none where there is no archive."""
    path = scores / name / "trials.jsonl"
    lines: list[dict[str, Any]] = _checked(path, _read_lines) if path.exists() else []
    return _planned(lines)


def archived_keys(scores: Path, name: str) -> set[str]:
    """Return the keys of the finished trials that are archived under a name."""
    table, lines = scores / f"{name}.csv", scores / name / "trials.jsonl"
    path = table if table.exists() else lines
    try:
        if table.exists():
            with schema.regular(table).open(newline="") as file:
                return {row["trial"] for row in csv.DictReader(file)}
        specs = _finished_specs(lines)
    except (OSError, ValueError, KeyError, RecursionError, csv.Error) as error:
        raise LedgerError(f"cannot read {path}: {error}. Restore it, or remove it.") from error
    return {spec.key for spec in specs}


def archived_seconds(scores: Path, name: str) -> dict[tuple[str, str], float]:
    """Return mean seconds per gradient step of the archived trials of a suite, by task and contender."""
    path = scores / name / "trials.jsonl"
    rates: dict[tuple[str, str], list[float]] = {}
    for line in _done(_checked(path, _read_lines)) if path.exists() else ():
        spec, seconds = schema.parse_spec(line["spec"]), float(line["result"].get("seconds") or 0)
        if seconds:
            rates.setdefault((spec.task, spec.contender), []).append(seconds / max(spec.train_steps, 1))
    return {cell: sum(found) / len(found) for cell, found in rates.items()}


def _finished_specs(path: Path) -> list[TrialSpec]:
    """Return the finished trials of a `trials.jsonl`, where there is one."""
    return [schema.parse_spec(line["spec"]) for line in _done(_read_lines(path))] if path.exists() else []
