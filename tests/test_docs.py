"""The documentation: its code blocks run, its reference is complete, and Sphinx builds it without a warning.

Blocks of ```sh, ```python and ```yaml run page by page in an empty folder, in order, as a reader would run them; a
```python block sees what those before it defined. A block whose first line is a comment with a file's name is saved
under that name. A block after `<!-- not run: why -->` does not run. Commands of dtbench run in this process at smoke
size: `run` and `plan` of a shipped suite get `--preset smoke`, as do those after `<!-- smoke: --preset smoke -->`.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import dtbench
from dtbench import registry
from dtbench.analysis.results import COLUMNS
from dtbench.cli.run import app
from dtbench.errors import DtbenchError
from dtbench.ledger.store import FILES
from dtbench.suite.loading import suite_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(r"^(?P<note><!-- .*? -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?P<name>\w+\.(?:py|yaml))\n")
SUITE = re.compile(r"(?:--suite|-s) (\S+)")


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    line: int
    language: str
    code: str
    note: str  # the remark before it, without its brackets


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        note = (match["note"] or "").removeprefix("<!-- ").removesuffix(" -->\n")
        yield Block(text[: match.start("code")].count("\n"), match["language"], match["code"], note)


def executed(page: Path) -> list[Block]:
    runs = ("sh", "python", "yaml")
    return [block for block in blocks(page) if block.language in runs and not block.note.startswith("not run: ")]


@pytest.mark.parametrize("page", [page for page in PAGES if executed(page)], ids=lambda p: str(p.relative_to(DOCS)))
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"__name__": "docs"}
    for block in executed(page):
        where = f"{page.name}, line {block.line}"
        if saved := FILE.match(block.code):
            Path(saved["name"]).write_text(block.code)
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.code), dict), where
        elif block.language == "python" and not saved:
            exec(compile(block.code, where, "exec"), names)
        elif block.language == "sh":
            for command in commands(block.code):
                run(command, smoke=block.note == "smoke: --preset smoke", where=where)


def commands(code: str) -> list[str]:
    """The lines of a shell block, those that end with a backslash joined, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def run(command: str, *, smoke: bool, where: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] != "dtbench":
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
        return
    outcome = CliRunner().invoke(app, at_smoke_size(words[1:], smoke=smoke))
    assert outcome.exit_code == 0, f"{where}: {command}\n{outcome.output}" + _mistake(outcome.exception)


def at_smoke_size(words: list[str], *, smoke: bool) -> list[str]:
    """What a reader types, made short: in one process, at the size that suites call smoke."""
    suite = SUITE.search(" ".join(words))
    if words[0] not in ("run",) or suite is None:
        return words
    shipped = suite[1] in suite_names() or smoke
    small = ["--preset", "smoke"] if shipped and "--preset" not in words else []
    small += ["task_options.steps=2000"] if suite[1] == "d4rl" and "-t" not in words else []
    alone = ["--local"] if words[0] == "run" and "--local" not in words else []
    return [*words, *small, *alone]


def _mistake(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, DtbenchError | Exception) else ""


def test_the_citation_names_the_version() -> None:
    assert f"\nversion: {dtbench.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_what_does_not_run_says_why() -> None:
    notes = [block.note for page in PAGES for block in blocks(page) if block.note]
    assert all(note.startswith(("not run: ", "smoke: --preset smoke")) for note in notes)
    assert len(notes) < 20


def test_the_reference_names_every_algorithm_suite_and_column() -> None:
    algorithms, suites, ledger = (
        (DOCS / "reference" / f"{name}.md").read_text() for name in ("algorithms", "suite", "ledger")
    )
    for name in registry.algorithm_names():
        found = registry.algorithm_class(name)
        assert f"## {name}\n\n```{{eval-rst}}\n.. autoclass:: {found.__module__}.{found.__name__}\n" in algorithms
    assert all(f"`{name}`" in suites for name in suite_names())
    assert all(f"| `{column}` |" in ledger for column in COLUMNS)


def test_the_reference_names_every_file_of_a_trial(tmp_path: Path) -> None:
    small = ["run", "--suite", "key-to-door", "--preset", "smoke", "-c", "DT", "--local"]
    assert CliRunner().invoke(app, small).exit_code == 0
    (folder,) = (path.parent for path in tmp_path.glob("results/runs/*/*/result.json"))
    page = (DOCS / "reference" / "ledger.md").read_text()
    documented = set(re.findall(r"^\| `(\w+\.\w+)` \|", page, re.MULTILINE))
    assert {path.name for path in folder.iterdir()} <= set(FILES) == documented


def test_sphinx_builds_the_pages_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    pytest.importorskip("sphinxcontrib.typer")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//", index)
    cli = (tmp_path / "site" / "reference" / "cli.html").read_text()
    assert all(f"dtbench {command}" in cli for command in ("run", "report", "status", "data export"))
    algorithms = (tmp_path / "site" / "reference" / "algorithms.html").read_text()
    assert "Table 9 prints 1e5" in algorithms  # the comment behind a field
