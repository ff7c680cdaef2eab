"""What a results directory has: the trials of its ledger and those of its archives, joined."""

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.analysis.archive import archived, archived_keys, planned_trials, read_archive, write_archive
from dtbench.analysis.extension import difference, extended
from dtbench.analysis.results import SuiteResults, collect
from dtbench.analysis.superseded import every_score
from dtbench.errors import LedgerError, NothingToReport, UnknownName
from dtbench.ledger.store import Ledger, TrialRecord
from dtbench.ledger.trial_spec import TrialSpec, TrialState


def load_results(results: Path, suites: Sequence[str] = ()) -> list[SuiteResults]:
    """Return the suites asked for, or all of a results directory: from its ledger where it has them, else archived.

    Raises UnknownName for a suite that is not there, NothingToReport where no trial has finished, and LedgerError,
    naming the file, for what cannot be read.
    """
    ledger, scores = Ledger(results / "runs"), results / "scores"
    ran = suites_by_name(ledger, scores)
    known = list(dict.fromkeys([*ran, *archived(scores)]))
    check_known(suites, known, results)
    found = [
        results_of(ran[name], ledger, scores) if name in ran else read_archive(scores, name)
        for name in known
        if not suites or name in suites
    ]
    empty = [one.name for one in found if not one.records]
    if empty and (suites or len(empty) == len(found)):
        raise NothingToReport(f"no trial of {', '.join(empty)} has finished. Run it: dtbench run --suite {empty[0]}")
    return [one for one in found if one.records]


def load_scores(results: str | Path = "results", *, suites: Sequence[str] = ()) -> pd.DataFrame:
    """Return the scores of all suites, or of these, as a tidy table: one row a trial, evaluation and target return."""
    tables = [every_score(found) for found in load_results(Path(results), suites)]
    return pd.concat(tables, ignore_index=True)


def check_known(suites: Sequence[str], known: Sequence[str], results: Path) -> None:
    """Raise NothingToReport where there is no suite at all, UnknownName for one that is not among those known."""
    if not known:
        raise NothingToReport(f"{results} holds no results. Run a suite first: dtbench run --suite NAME")
    for name in suites:
        if name not in known:
            raise UnknownName(f"suite in {results}", name, known, hint=f"Run it first: dtbench run -s {name}")


def suites_by_name(ledger: Ledger, scores: Path) -> dict[str, Mapping[str, Any]]:
    """Return the suites of a ledger, by the names of their archives."""
    remembered = ledger.saved_suites().values()
    own = _finished(ledger) if remembered else set()
    return {_free_name(document, own, ledger, scores): document for document in remembered}


def keep_scores(document: Mapping[str, Any], ledger: Ledger, scores: Path) -> SuiteResults:
    """Write what `results_of` returns, unless no trial has finished or all of them are archived already."""
    found = results_of(document, ledger, scores)
    finished = {record.spec.key for record in found.records}
    known = archived_keys(scores, found.name)
    if finished and (known <= _undamaged(ledger, found) or not finished <= known):
        write_archive(found, scores)
    return found


def results_of(document: Mapping[str, Any], ledger: Ledger, scores: Path) -> SuiteResults:
    """Return what the ledger has of a suite, with the archived trials that it extends.

    The name is the suite's own, unless trials are archived there that this ledger does not have and that differ from
    these, as those of another preset do; then `<suite>-<preset>`, and `-2`, `-3`, ... while that is taken too. Where
    the archive differs, its trials count that are planned here too, and so do those that other suites have archived.
    """
    found = _with_shared(collect(document, ledger), scores)
    name, own = str(document["name"]), _undamaged(ledger, found) | {record.spec.key for record in found.records}
    free = _free_name(document, own, ledger, scores)
    if not archived_keys(scores, name) <= own and name in archived(scores):
        archive = read_archive(scores, name)
        archive = archive if free == name else _narrowed(archive, document)
        found = extended(archive, found) if archive.records else found
    return renamed(found, free)


def differences(document: Mapping[str, Any], scores: Path) -> str:
    """Return in what the archive of a suite's name differs from this plan of it, "" where it can be extended."""
    theirs = planned_trials(scores, str(document["name"]))
    return difference(theirs, [TrialSpec.from_json(trial) for trial in document["trials"]])


def shared_keys(scores: Path, name: str, keys: Collection[str]) -> set[str]:
    """Return those of these keys of which suites of other names have archived the trials.

    A trial is its settings and its data, whichever suite planned it. An archive that cannot be read has none here; a
    report says what is wrong with it.
    """
    archives = _others_with(scores, name, keys)
    return {one.spec.key for archive in archives for one in _every_record(archive)} & set(keys)


def finished_anywhere(scores: Path, name: str, planned: Collection[str]) -> set[str]:
    """Return the keys of the finished trials archived under a name, and of those planned that other suites share."""
    own = archived_keys(scores, name)
    return own | shared_keys(scores, name, set(planned) - own)


def _others_with(scores: Path, name: str, keys: Collection[str]) -> Iterator[SuiteResults]:
    for other in archived(scores):
        with contextlib.suppress(LedgerError):
            if other != name and not archived_keys(scores, other).isdisjoint(keys):
                yield read_archive(scores, other)


def _every_record(results: SuiteResults) -> tuple[TrialRecord, ...]:
    return (*results.records, *results.superseded)


def _with_shared(found: SuiteResults, scores: Path) -> SuiteResults:
    """Return results with those planned trials that other suites have archived."""
    waiting = {one.spec.key for one in found.unfinished if one.state is not TrialState.DAMAGED}
    planned = {**found.suite, "trials": [trial for trial in found.suite["trials"] if trial["key"] in waiting]}
    for archive in _others_with(scores, found.name, waiting):
        every = dataclasses.replace(archive, records=_every_record(archive))
        found = extended(_narrowed(every, planned), found)
    return found


def _narrowed(archive: SuiteResults, document: Mapping[str, Any]) -> SuiteResults:
    """Return the finished trials of an archive that a document plans, under its labels."""
    finished = {record.spec.key: record for record in archive.records}
    planned = [TrialSpec.from_json(trial) for trial in document["trials"] if trial["key"] in finished]
    records = tuple(finished[spec.key].relabelled(spec) for spec in planned)
    return dataclasses.replace(archive, suite=document, records=records, unfinished=(), superseded=())


def renamed(results: SuiteResults, name: str) -> SuiteResults:
    """Return the same results as those of a suite of another name."""
    if name == results.name:
        return results
    trials = [{**trial, "suite": name} for trial in results.suite.get("trials") or []]
    title = f"{results.suite.get('title') or results.name} ({name})"
    records, superseded = (
        tuple(one.relabelled(one.spec.labelled(suite=name, contender=one.spec.contender)) for one in part)
        for part in (results.records, results.superseded)
    )
    unfinished = tuple(
        dataclasses.replace(trial, spec=trial.spec.labelled(suite=name, contender=trial.spec.contender))
        for trial in results.unfinished
    )
    suite = {**results.suite, "name": name, "title": title, "trials": trials}
    scores = results.scores.assign(suite=name)
    return dataclasses.replace(
        results, suite=suite, records=records, unfinished=unfinished, scores=scores, superseded=superseded
    )


def _finished(ledger: Ledger) -> set[str]:
    """Return the keys of all finished trials, from the names of their directories: nothing is opened."""
    return {path.parent.name.rpartition("-")[2] for path in ledger.root.glob("*/*/result.json")}


def _undamaged(ledger: Ledger, found: SuiteResults) -> set[str]:
    """Return the keys of the finished trials of a ledger; an archive may hold more of those that are damaged here."""
    return _finished(ledger) - {one.spec.key for one in found.unfinished if one.state is TrialState.DAMAGED}


def _free_name(suite: Mapping[str, Any], own: set[str], ledger: Ledger, scores: Path) -> str:
    others = set(ledger.saved_suites()) - {str(suite["name"])}
    first = str(suite["name"])
    if first not in others and (archived_keys(scores, first) <= own or not differences(suite, scores)):
        return first
    own = own | archived_keys(scores, first)
    planned = {trial["key"] for trial in suite["trials"]}

    def fits(name: str) -> bool:
        further = archived_keys(scores, name) - own
        return not further or (further <= planned and further <= shared_keys(scores, name, further))

    return next(name for name in _names(suite) if name not in (*others, first) and fits(name))


def _names(suite: Mapping[str, Any]) -> Iterator[str]:
    name, preset = str(suite["name"]), suite.get("preset")
    yield name
    if preset:
        name = f"{name}-{preset}"
        yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))
