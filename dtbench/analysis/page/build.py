"""From results to a directory: index.html, README.md, and for each suite report.md, tables/ and figures/."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from dtbench.analysis.groups import GROUPS, group_of
from dtbench.analysis.page import html
from dtbench.analysis.page.html import Document, SuitePage
from dtbench.analysis.page.overview import overview, searches_section
from dtbench.analysis.page.suite_page import suite_page
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.suite_analysis import SuiteAnalysis, analyze
from dtbench.errors import DtbenchError, NothingToReport
from dtbench.ledger.store import write_bytes
from dtbench.tuning.search import SearchRecord

TITLE = "Does return-conditioned sequence modelling match TD learning?"
OVERVIEW = "overview"  # the directory of all suites together
README = "README.md"  # the answer, for who browses the directory
MANIFEST = "manifest.json"  # of the files that a report wrote
_KEPT = ("index.html", README)  # hold all that the other files say: a repository needs no others
_WHERE = (
    "The report is the page index.html beside this file: open it in a browser. The command dtbench report makes it "
    "from results/scores, and with it the tables and figures of every suite as files."
)
_OURS = re.compile(r"index\.html|README\.md|(?!\.)[^/]+/(report\.md|tables/[^/]+\.(csv|tex)|figures/[^/]+\.png)")


def write_report(
    found: Sequence[SuiteResults], directory: Path, *, workers: int = 1, searches: Sequence[SearchRecord] = ()
) -> Path:
    """Write the whole report and give the path of its index.html; equal results give equal bytes.

    Files that an earlier report wrote there, by its manifest, are overwritten or removed, others never.

    Raises NothingToReport where no trial has finished, DtbenchError where a file is in the way that no report wrote.
    `workers` is that of `build_report`.
    """
    directory = Path(directory)
    earlier = _manifest(directory)
    _check_free(directory, earlier)
    files = build_report(found, workers=workers, searches=searches)
    _check_free(directory, earlier, files)
    manifest = files.pop(MANIFEST)
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(directory / MANIFEST, _manifest_of({*earlier, *files}))  # a kill leaves nothing that it does not list
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(directory / name, content)
    for path in _left_over(directory, files):
        path.unlink()
        for above in (path.parent, path.parent.parent):
            if above != directory and not any(above.iterdir()):
                above.rmdir()
    write_bytes(directory / MANIFEST, manifest)
    return directory / "index.html"


def build_report(
    found: Sequence[SuiteResults], *, workers: int = 1, searches: Sequence[SearchRecord] = ()
) -> dict[str, bytes]:
    """Return every file of the report by its path.

    Raises NothingToReport where no trial has finished. With several `workers` suites are drawn in processes of their
    own, which import the calling script again: it must have its `if __name__ == "__main__":`.
    """
    names_of_searches = {record.name for record in searches}
    groups = {results.name: group_of(results.suite, names_of_searches) for results in found}
    order = sorted(found, key=lambda results: list(GROUPS).index(groups[results.name]))
    analyses = [analyze(one, searches) for one in order if one.records]
    if not analyses:
        names = ", ".join(results.name for results in found) or "any suite"
        raise NothingToReport(f"no trial of {names} has finished. Run `dtbench run` first.")
    suites = _suite_pages(analyses, min(workers, len(analyses)))
    suites = tuple(replace(suite, group=groups[suite.name]) for suite in suites)
    sections = (*overview(analyses), *searches_section(searches))
    files = {"index.html": html.render(Document(TITLE, sections, suites)).encode()}
    whole = SuitePage(OVERVIEW, TITLE, description="", facts=(), warning="", sections=sections, trials={})
    for suite in (whole, *suites):
        files |= _files(suite)
    summary = replace(whole, description=_WHERE, sections=sections[:2])
    files[README] = html.markdown(summary, figures=f"{OVERVIEW}/figures").encode()
    return files | {MANIFEST: _manifest_of(files)}


def check_report(
    found: Sequence[SuiteResults], directory: Path, *, workers: int = 1, searches: Sequence[SearchRecord] = ()
) -> list[str]:
    """Return how a report on disk differs from what the results give: a sentence a file, none where all is equal.

    Files of single tables and figures may be absent, since the page holds them all.
    """
    files = build_report(found, workers=workers, searches=searches)
    return [
        *(
            difference
            for name, content in files.items()
            if name in _KEPT or (Path(directory) / name).exists()
            for difference in _difference(Path(directory) / name, content)
        ),
        *(f"{path} is left over: these results do not make it." for path in _left_over(Path(directory), files)),
    ]


def _suite_pages(analyses: Sequence[SuiteAnalysis], workers: int) -> tuple[SuitePage, ...]:
    if workers < 2:
        return tuple(map(suite_page, analyses))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return tuple(pool.map(suite_page, analyses))


def _files(suite: SuitePage) -> dict[str, bytes]:
    directory = suite.name
    shown = [table for section in suite.sections for table in section.tables]
    drawn = [drawing for section in suite.sections for drawing in (*section.drawings, *section.more)]
    files = {f"{directory}/report.md": html.markdown(suite).encode()}
    files |= {f"{directory}/tables/{table.name}.csv": table.csv().encode() for table in shown}
    files |= {f"{directory}/tables/{table.name}.tex": table.latex(directory).encode() for table in shown}
    return files | {f"{directory}/figures/{drawing.name}.png": drawing.png for drawing in drawn}


def _manifest_of(names: Iterable[str]) -> bytes:
    return (json.dumps({"files": sorted({*names} - {MANIFEST})}, indent=1, ensure_ascii=False) + "\n").encode()


def _manifest(directory: Path) -> set[str]:
    """Return the files that a report wrote to a directory; names that no report has are left out.

    Raises DtbenchError where the manifest cannot be read.
    """
    path = directory / MANIFEST
    try:
        names = json.loads(path.read_bytes())["files"]
        return {name for name in map(str, names) if _OURS.fullmatch(name)} | {MANIFEST}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DtbenchError(f"{path}, the list of the report's files, cannot be read ({error}). Delete it.") from error


def _check_free(directory: Path, earlier: Set[str], files: Iterable[str] = ("index.html",)) -> None:
    """Raise DtbenchError where a file would be overwritten that no report wrote."""
    for name in files:
        if name not in earlier and os.path.lexists(directory / name):
            raise DtbenchError(
                f"{directory / name} was not written by dtbench (it is not in {directory / MANIFEST}). "
                "Choose another --out, or move it away."
            )
        if link := _link(directory, name):
            raise DtbenchError(f"{link} is a link: a report is not written through links. Choose another --out.")


def _link(directory: Path, name: str) -> Path | None:
    """Return the first link on the way from a report's directory to one of its files."""
    path = directory
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            return path
    return None


def _left_over(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Return the files of an earlier report, by its manifest, that this one no longer has."""
    gone = sorted(_manifest(directory) - {MANIFEST, *files})
    return [directory / name for name in gone if (directory / name).is_file() and not _link(directory, name)]


def _difference(path: Path, content: bytes) -> Iterator[str]:
    if not path.exists():
        yield f"{path} is missing."
    elif (there := path.read_bytes()) != content and _plain(path, there) != _plain(path, content):
        yield f"{path} differs{_first_line(there, content)}."


def _plain(path: Path, content: bytes) -> bytes | str:
    """Return the content without compression: machines have different versions of zlib."""
    return html.unpacked(content.decode(errors="replace")) if path.suffix == ".html" else content


def _first_line(there: bytes, content: bytes) -> str:
    """Return where two texts part, shortened; "" for pictures."""
    try:
        pair = there.decode().splitlines(), content.decode().splitlines()
    except UnicodeDecodeError:
        return ""
    for number, (theirs, ours) in enumerate(zip(*pair, strict=False), start=1):
        if theirs != ours:
            start = next((i for i, two in enumerate(zip(theirs, ours, strict=False)) if two[0] != two[1]), 0)
            shown = slice(max(0, start - 20), start + 40)
            return f" in line {number}: there {theirs[shown]!r}, rebuilt {ours[shown]!r}"
    return " in its length"
