"""The commands that read results: report, plot, compare; and `keep_scores`, which `run` calls too."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtbench.cli.completion import complete_suite
from dtbench.errors import DtbenchError, LedgerError, UnknownName, one_line

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from dtbench.analysis.compare import Pair, Rule, Side
    from dtbench.analysis.results import SuiteResults
    from dtbench.ledger.store import Ledger
    from dtbench.tuning.search import SearchRecord

_PRINTED = ("text", "markdown", "csv", "json")  # formats of `compare`
_WORKERS = os.cpu_count() or 1  # processes that draw suites at the same time


def results_folder(text: str | Path) -> Path:
    """Return the directory; for an address such as s3://bucket/path its local mirror, brought up to date."""
    if "://" not in str(text):
        return Path(text)
    from dtbench.ledger.remote import results_folder

    return results_folder(text)


ResultsOption = Annotated[
    Path,
    typer.Option(
        parser=results_folder,
        metavar="DIRECTORY",
        help="Directory or address (s3://bucket/path) with runs/ and scores/.",
    ),
]
SuitesOption = Annotated[
    list[str] | None,
    typer.Option("--suite", "-s", help="Default: every suite. Repeatable.", autocompletion=complete_suite),
]


def report(
    suite: SuitesOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Preset of the one --suite. Default: that of its last run.")
    ] = None,
    results: ResultsOption = Path("results"),
    out: Annotated[Path, typer.Option(help="Directory of index.html and <suite>/ with tables and figures.")] = Path(
        "report"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 where --out is not what the scores give.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write tables, figures and one HTML page of all suites.

    First brings results/scores up to date with the ledger results/runs, where
    there is one; then builds the report from results/scores alone, so that a
    checkout without a ledger gives the same bytes. Scores of another machine
    are never overwritten: what is new is then kept, and reported, under the
    name <suite>-<preset>.
    """
    if check and (open_ or preset):
        raise DtbenchError(f"--check writes nothing and runs nothing: it excludes --{'open' if open_ else 'preset'}.")
    names = suite or []
    if check:
        raise typer.Exit(0 if _is_current(names, results, out) else 1)
    _refresh(names, preset, results)
    index = _build(names, results, out)
    typer.echo(str(index.resolve()))
    if open_:
        typer.launch(index.resolve().as_uri())


def plot(
    suite: Annotated[list[str], typer.Option("--suite", "-s", help="Name of a suite with results.")],
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Name, its beginning, or a pattern. Default: all tasks together."),
    ] = None,
    kind: Annotated[str, typer.Option(help="targets, progress, bars, profiles, improvement or data")] = "targets",
    out: Annotated[Path | None, typer.Option(help="A .png, .svg or .pdf. Default: <kind>-<task>.png here.")] = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Draw one figure: achieved against target return, score over training, or final scores."""
    from dtbench.analysis.results_directory import load_results
    from dtbench.cli.plot import check_file, draw, write_drawing

    if out is not None:
        check_file(out)
    if len(suite) > 1:
        raise DtbenchError(f"a figure is of one suite, and {len(suite)} are named: {', '.join(suite)}. Name one.")
    (found,) = load_results(results, suite)
    warn_left_out(found.damaged)
    drawing = draw(found, kind, task)
    path = out or Path(f"{drawing.name}.png")
    write_drawing(drawing, path)
    typer.echo(str(path.resolve()))


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="Directory of the results before.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Directory of the results after.")],
    suite: SuitesOption = None,
    max_drop: Annotated[float, typer.Option(min=0, help="Let B be worse by as much as this.")] = 0.0,
    fail_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Also fail where P(B improves on A) is below this.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="text, markdown, csv or json")] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare results A and B by suite, task and contender. Exit code 1: a regression.

    A and B are each a results directory (with scores/ or runs/) or a directory
    of scores.

    A regression is where B's mean final score is worse by Welch's test, with
    Holm's correction for all that is compared, and the 95 % interval of B - A
    lies wholly below -MAX_DROP; where P(B improves on A) is below FAIL_BELOW
    if that is given; or where every trial of B scored nan or diverged. With
    one seed on either side there is no test. What is identical, or on one
    side only, is no regression.
    """
    from dtbench.analysis.compare import Rule, compare

    format_ = "json" if json_ else format_
    if format_ not in _PRINTED:
        raise UnknownName("format", format_, _PRINTED)
    sides = _side(before), _side(after)
    warn_left_out(line for side in sides for one in side.suites.values() for line in one.damaged)
    pairs, rule = compare(*sides, suite or ()), Rule(max_drop, fail_below)
    _print_pairs(format_, pairs, *sides, rule)
    raise typer.Exit(1 if any(map(rule.broken_by, pairs)) else 0)


COMMANDS: tuple[Callable[..., None], ...] = (report, plot, compare)


def keep_scores(document: Mapping[str, Any], ledger: "Ledger", results: Path, *, fresh: bool = True) -> "SuiteResults":
    """Bring results/scores up to date with the ledger's trials of a suite; warn where its name is taken.

    `fresh`: fetch first what trials have written to a ledger at an address since.
    """
    from dtbench.analysis import results_directory

    with published(results, fresh=fresh):
        found = results_directory.keep_scores(document, ledger, results / "scores")
    warn_left_out(found.damaged)
    name = str(document["name"])
    if found.records and found.name != name:
        why = results_directory.differences(document, results / "scores")
        other = f"{results / 'scores' / name} has other trials ({why}) and stays as it is"
        typer.secho(f"{other}. These results are kept as {found.name}.", err=True, fg="yellow", bold=True)
    return found


def warn_left_out(lines: Iterable[str]) -> None:
    """Print what is left out of results, and why."""
    for line in lines:
        typer.secho(f"left out: {one_line(line)}", err=True, fg="yellow", bold=True)


def published(results: Path, *, fresh: bool = True) -> AbstractContextManager[None]:
    """Return a context in which a results directory may be written; on exit its address, if any, is updated."""
    if not (results / ".mirror-of").exists():
        return nullcontext()
    from dtbench.ledger import remote

    return remote.published(results, fresh=fresh)


def _refresh(names: Sequence[str], preset: str | None, results: Path) -> None:
    """Bring the scores of these suites, or of all in the ledger, up to date."""
    from dtbench.analysis.results_directory import suites_by_name
    from dtbench.ledger.store import Ledger

    ledger = Ledger(results / "runs")
    warn_left_out(ledger.read_suites()[1])
    if preset:
        documents = [_with_preset(names, preset)]
    else:
        documents = [
            document
            for name, document in suites_by_name(ledger, results / "scores").items()
            if not names or {name, str(document["name"])} & set(names)
        ]
    for document in documents:
        if not keep_scores(document, ledger, results, fresh=False).records:
            typer.echo(f"{document['name']}: no finished trial to report.", err=True)


def _with_preset(names: Sequence[str], preset: str) -> Mapping[str, Any]:
    from dtbench.suite.planning import load_suite, resolved_document, trial_specs

    if len(names) != 1:
        raise DtbenchError("--preset needs one --suite: which suite's preset?")
    chosen = load_suite(names[0], preset=preset)
    return resolved_document(chosen, trial_specs(chosen))


def _build(names: Sequence[str], results: Path, out: Path) -> Path:
    from dtbench.analysis.archive import archived, read_archive
    from dtbench.analysis.page.build import write_report
    from dtbench.analysis.results_directory import check_known

    scores = results / "scores"
    known = archived(scores)
    check_known(names, known, results)
    for path in sorted(scores.glob("*.csv")):
        if path.stem not in known:
            typer.echo(f"{path} has no archive {path.with_suffix('')} beside it: not in the report.", err=True)
    found = [read_archive(scores, name) for name in names or known]
    return write_report(found, out, workers=_WORKERS, searches=_searches(names, results))


def _searches(names: Sequence[str], results: Path) -> "tuple[SearchRecord, ...]":
    from dtbench.tuning.search import read_records

    found = read_records(results / "searches")
    return tuple(record for record in found if not names or record.config.suite in names)


def _is_current(names: Sequence[str], results: Path, out: Path) -> bool:
    """Check that score files follow from their episodes and the report from them; print what does not."""
    from dtbench.analysis.archive import archived, read_archive
    from dtbench.analysis.page.build import check_report
    from dtbench.analysis.results_directory import check_known

    scores = results / "scores"
    known = archived(scores)
    check_known(names, known, results)
    found, wrong = [], []
    for name in names or known:
        try:
            found.append(read_archive(scores, name))
        except LedgerError as error:
            wrong.append(str(error))
    for line in wrong or check_report(found, out, workers=_WORKERS, searches=_searches(names, results)):
        typer.echo(line)
        wrong = wrong or [line]
    if not wrong:
        typer.echo(f"{out} is what {scores} gives: {', '.join(one.name for one in found)}")
    return not wrong


def _side(text: str) -> "Side":
    from dtbench.analysis.compare import open_side

    if "://" not in text:
        return open_side(text)
    return dataclasses.replace(open_side(str(results_folder(text))), name=text.partition("?")[0])


def _print_pairs(kind: str, pairs: "list[Pair]", before: "Side", after: "Side", rule: "Rule") -> None:
    from dtbench.analysis.compare import document, table_of, text

    table = table_of(pairs, before, after, rule)
    if kind == "json":
        typer.echo(document(pairs, before, after, rule), nl=False)
    elif kind == "csv":  # the rows alone; notes go to stderr
        typer.echo(table.csv(), nl=False)
        typer.echo("\n".join(table.notes), err=True)
    else:
        typer.echo(table.markdown() if kind == "markdown" else text(table), nl=False)
