"""Which results a folder holds, and under which name new ones are kept there: never over somebody else's."""

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtbench.analysis.archive import archived, read_archive, write_archive
from dtbench.analysis.scores import SuiteResults, collect
from dtbench.errors import LedgerError, NothingToReport, UnknownName
from dtbench.ledger import Ledger


def load_results(results: Path, suites: Sequence[str] = ()) -> list[SuiteResults]:
    """The suites asked for, or all that a results folder holds: from its ledger where it has them, else archived.

    Raises UnknownName for a suite that is not there, NothingToReport where no trial has finished, and LedgerError,
    naming the file, for what cannot be read.
    """
    ledger, scores = Ledger(results / "runs"), results / "scores"
    ran = placed_suites(ledger, scores)
    known = list(dict.fromkeys([*ran, *archived(scores)]))
    check_known(suites, known, results)
    found = [
        _collected(ran[name], ledger, name) if name in ran else read_archive(scores, name)
        for name in known
        if not suites or name in suites
    ]
    empty = [one.name for one in found if not one.records]
    if empty and (suites or len(empty) == len(found)):
        raise NothingToReport(f"no trial of {', '.join(empty)} has finished. Run it: dtbench run --suite {empty[0]}")
    return [one for one in found if one.records]


def check_known(suites: Sequence[str], known: Sequence[str], results: Path) -> None:
    """Raise NothingToReport where there is no suite at all, UnknownName for one that is not among those known."""
    if not known:
        raise NothingToReport(f"{results} holds no results. Run a suite first: dtbench run --suite NAME")
    for name in suites:
        if name not in known:
            raise UnknownName(f"suite in {results}", name, known, hint=f"Run it first: dtbench run -s {name}")


def placed_suites(ledger: Ledger, scores: Path) -> dict[str, Mapping[str, Any]]:
    """The suites that a ledger remembers, by the names that their scores are kept under."""
    remembered = ledger.remembered_suites().values()
    own = _finished(ledger) if remembered else set()
    return {_place(document, own, ledger, scores): document for document in remembered}


def place_for(results: SuiteResults, ledger: Ledger, scores: Path) -> str:
    """The name to keep results under in a folder of scores.

    It is the suite's own, unless finished trials are kept there that neither this ledger nor these results have, such
    as those of another machine; then `<suite>-<preset>`, and `-2`, `-3`, ... while that belongs to others too.
    """
    own = _finished(ledger) | {record.spec.key for record in results.records}
    return _place(results.suite, own, ledger, scores)


def keep_scores(document: Mapping[str, Any], ledger: Ledger, scores: Path) -> SuiteResults:
    """Write what the ledger has of a suite where `place_for` says; give the results under that name.

    Nothing is written where no trial has finished.
    """
    found = collect(document, ledger)
    if not found.records:
        return found
    placed = renamed(found, place_for(found, ledger, scores))
    write_archive(placed, scores)
    return placed


def renamed(results: SuiteResults, name: str) -> SuiteResults:
    """The same results as those of a suite of another name."""
    if name == results.name:
        return results
    trials = [{**trial, "suite": name} for trial in results.suite.get("trials") or []]
    title = f"{results.suite.get('title') or results.name} ({name})"
    records = tuple(
        record.relabelled(record.spec.labelled(suite=name, contender=record.spec.contender))
        for record in results.records
    )
    unfinished = tuple(
        dataclasses.replace(trial, spec=trial.spec.labelled(suite=name, contender=trial.spec.contender))
        for trial in results.unfinished
    )
    suite = {**results.suite, "name": name, "title": title, "trials": trials}
    scores = results.scores.assign(suite=name)
    return dataclasses.replace(results, suite=suite, records=records, unfinished=unfinished, scores=scores)


def _collected(document: Mapping[str, Any], ledger: Ledger, name: str) -> SuiteResults:
    return renamed(collect(document, ledger), name)


def _finished(ledger: Ledger) -> set[str]:
    """The keys of all finished trials, from the names of their folders: nothing is opened."""
    return {path.parent.name.rpartition("-")[2] for path in ledger.root.glob("*/*/result.json")}


def _place(suite: Mapping[str, Any], own: set[str], ledger: Ledger, scores: Path) -> str:
    others = set(ledger.remembered_suites()) - {str(suite["name"])}
    free = (name for name in _names(suite) if name not in others and _kept(scores, name) <= own)
    return next(free)


def _names(suite: Mapping[str, Any]) -> Iterator[str]:
    name, preset = str(suite["name"]), suite.get("preset")
    yield name
    if preset:
        name = f"{name}-{preset}"
        yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _kept(scores: Path, name: str) -> set[str]:
    """The keys of the finished trials that are kept under a name."""
    table, lines = scores / f"{name}.csv", scores / name / "trials.jsonl"
    path = table if table.exists() else lines
    try:
        if table.exists():
            with table.open(newline="") as file:
                return {row["trial"] for row in csv.DictReader(file)}
        if lines.exists():
            rows = [json.loads(line) for line in lines.read_text().splitlines()]
            return {row["spec"]["key"] for row in rows if row["state"] == "done"}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise LedgerError(f"cannot read {path}: {error}. Restore it, or remove it.") from error
    return set()
