"""Ledgers and archives in which files were cut, changed or written by somebody else."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from dtbench.analysis.archive import read_archive, write_archive
from dtbench.analysis.page.suite_page import suite_page
from dtbench.analysis.results_directory import keep_scores, load_results, suites_by_name
from dtbench.analysis.suite_analysis import analyze
from dtbench.cli.status import show_trial, status_of
from dtbench.errors import DtbenchError, LedgerError
from dtbench.ledger.store import EPISODES, Ledger
from tests.fuzz.outcome import Target
from tests.fuzz.values import anything, damage, damaged, mutated
from tests.support.tiny_ledger import spec_of, tiny_ledger

SCORES = {("hill", "DT"): (50.0, 51.0), ("hill", "BC"): (40.0, None)}
_NO_TEXT = (EPISODES, "metrics.parquet")


@cache
def _originals() -> dict[str, bytes]:
    """Every file of a small ledger and of its archive, by its place in the results folder."""
    folder = Path("original").absolute()
    write_archive(tiny_ledger(folder, SCORES), folder / "scores")
    failed = Ledger(folder / "runs")
    failed.record_failure(spec_of("hill", "BC", 1), cause="crash", text="Traceback\nValueError: no")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    shutil.rmtree(folder)
    return found


def files(part: str) -> list[tuple[str, int]]:
    """The files below `runs` or `scores`, and their sizes."""
    return [(name, len(content)) for name, content in _originals().items() if name.startswith(part)]


def written(folder: Path, name: str, content: bytes) -> Path:
    """The results folder with one file that is otherwise."""
    results = folder / "results"
    for place, original in _originals().items():
        (results / place).parent.mkdir(parents=True, exist_ok=True)
        (results / place).write_bytes(content if place == name else original)
    return results


def cut(folder: Path, given: tuple[str, int]) -> None:
    """A file of which only the first bytes are left."""
    name, length = given
    check_results(written(folder, name, _originals()[name][:length]), name)


def check_results(results: Path, changed: str) -> None:
    """Do what the commands do that read a ledger: each gives what it gave before, or an error of one line.

    What is no part of any result, such as the definition of a suite, may be otherwise; episodes may not.
    """
    ledger = Ledger(results / "runs")
    first: list[DtbenchError] = []
    with contextlib.redirect_stdout(io.StringIO()):
        for act in _acts(results, ledger):
            try:
                act()
            except DtbenchError as error:
                first.append(error)
    if first:
        raise first[0]


def _acts(results: Path, ledger: Ledger) -> Iterator[Callable[[], object]]:
    specs = [spec_of("hill", contender, seed) for contender in ("DT", "BC") for seed in (0, 1)]
    for spec in specs:
        yield lambda spec=spec: ledger.should_run(spec)
        yield lambda spec=spec: _is_right(ledger, spec)
        yield lambda spec=spec: show_trial(spec.key, results)
    yield lambda: status_of(results)
    yield lambda: suites_by_name(ledger, results / "scores")
    yield lambda: _pages(results)
    yield lambda: [keep_scores(suite, ledger, results / "again") for suite in ledger.saved_suites().values()]


def _is_right(ledger: Ledger, spec: Any) -> None:
    """What is done has the result and the episodes that it had."""
    record = ledger.record(spec)
    if record is None:
        assert ledger.state(spec) != "done"
        return
    rows, original = record.episodes(), _original_episodes(spec.key)
    if not rows.equals(original):
        raise AssertionError(f"other episodes of {spec.key} without a word")
    record.metrics()
    record.inspection()


@cache
def _original_episodes(key: str) -> pd.DataFrame:
    (content,) = (c for name, c in _originals().items() if name.endswith(f"{key}/{EPISODES}"))
    return pd.read_parquet(io.BytesIO(content))


def _pages(results: Path) -> None:
    for found in load_results(results):
        analyze(found)


def _changed_archive(folder: Path, given: tuple[str, Any]) -> None:
    name, how = given
    content = how(_originals()[name])
    results = written(folder, name, content)
    shutil.rmtree(results / "runs")
    found = read_archive(results / "scores", "tiny")
    assert found.name == "tiny"
    analyze(found)


def _drawn_archive(folder: Path, given: tuple[str, Any]) -> None:
    """As above, with every table and figure of the page, which takes a second."""
    name, how = given
    results = written(folder, name, how(_originals()[name]))
    shutil.rmtree(results / "runs")
    suite_page(analyze(read_archive(results / "scores", "tiny")))


def _changed_ledger(folder: Path, given: tuple[str, Any]) -> None:
    name, how = given
    try:
        check_results(written(folder, name, how(_originals()[name])), name)
    except AssertionError as error:
        if not name.endswith(".parquet"):
            raise
        raise LedgerError("parquet keeps no checksum of its pages") from error


@st.composite
def _changes(draw: st.DrawFn, part: str) -> tuple[str, Any]:
    """A file and what becomes of it: damage, or other JSON."""
    names = [name for name, _ in files(part)]
    name = draw(st.sampled_from(names))
    steps = draw(damage())
    if not name.endswith((".json", ".jsonl")) or draw(st.booleans()):
        return name, _Damage(steps)
    whole = _originals()[name].decode()
    text = whole if name.endswith(".json") else whole.splitlines()[0]
    other = draw(st.one_of(mutated(st.just(json.loads(text))), mutated(st.just(json.loads(text))), anything))
    return name, _Other(json.dumps(other) + "\n" + (whole.partition("\n")[2] if name.endswith(".jsonl") else ""))


class _Damage:
    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def __call__(self, content: bytes) -> bytes:
        return damaged(content, self.steps)

    def __repr__(self) -> str:
        return f"damage {self.steps}"


class _Other:
    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, content: bytes) -> bytes:
        return self.text.encode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return f"other {self.text}"


@st.composite
def _cuts(draw: st.DrawFn) -> tuple[str, int]:
    name, size = draw(st.sampled_from(files("runs")))
    return name, draw(st.integers(0, size))


TARGETS = (
    Target("ledger cut", _cuts(), cut),
    Target("ledger", _changes("runs"), _changed_ledger),
    Target("archive", _changes("scores"), _changed_archive),
    Target("report", _changes("scores"), _drawn_archive),
)
