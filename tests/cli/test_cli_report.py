"""`dtbench report`, `plot`, `compare` and `export`, in this process."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dtbench.analysis.archive import write_archive
from dtbench.cli.run import main
from tests.support.tiny_ledger import SCORES, tiny_ledger

Output = tuple[str, str]  # stdout, stderr
DTBENCH = Callable[..., Output]


@pytest.fixture
def dtbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> DTBENCH:
    def run(*arguments: str, code: int = 0) -> Output:
        monkeypatch.setattr(sys, "argv", ["dtbench", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert end.value.code == code, printed.out + printed.err
        assert code != 2 or len(printed.err.strip().splitlines()) == 1, printed.err
        return printed.out, printed.err

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results/ (ledger and scores) and the report/ of two suites."""
    folder = tmp_path_factory.mktemp("built")
    tiny_ledger(folder / "results")
    tiny_ledger(folder / "results", {("valley", "BC"): (1.0, 2.0)}, suite="small", digest="e" * 64)
    command = [sys.executable, "-c", "from dtbench.cli.run import main; main()", "report"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "report" / "index.html")
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Path:
    """A copy of it in the working directory."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_report_is_made_of_all_suites_of_the_ledger(built: Path) -> None:
    assert {path.name for path in (built / "results" / "scores").iterdir()} == {
        *("tiny", "tiny.csv", "small", "small.csv")
    }
    assert {"tiny", "small"} <= {path.name for path in (built / "report").iterdir()}


def test_a_report_needs_the_scores_alone(here: Path, dtbench: DTBENCH) -> None:
    before = files(here / "report")
    shutil.rmtree(here / "results" / "runs")
    dtbench("report", "--out", "again")
    assert files(here / "again") == before


def test_a_report_of_one_suite_has_no_other(here: Path, dtbench: DTBENCH) -> None:
    dtbench("report", "--suite", "small", "--out", "one")
    assert (here / "one" / "small").exists()
    assert not (here / "one" / "tiny").exists()


def test_check_passes_on_what_was_just_built_and_writes_nothing(here: Path, dtbench: DTBENCH) -> None:
    before = files(here)
    out, _ = dtbench("report", "--check")
    assert "report is what results/scores gives: small, tiny" in out
    assert files(here) == before


def test_check_fails_after_a_digit_of_a_score_file_is_changed(here: Path, dtbench: DTBENCH) -> None:
    path = here / "results" / "scores" / "tiny.csv"
    lines = path.read_text().splitlines(keepends=True)
    assert ",30," in lines[2]
    lines[2] = lines[2].replace(",30,", ",31,")
    path.write_text("".join(lines))
    out, _ = dtbench("report", "--check", code=1)
    assert "tiny.csv, line 3" in out


def test_check_fails_where_the_report_is_not_that_of_the_scores(here: Path, dtbench: DTBENCH) -> None:
    page = here / "report" / "index.html"
    page.write_bytes(page.read_bytes() + b" ")
    (here / "report" / "README.md").unlink()
    (here / "report" / "tiny" / "report.md").unlink()  # output that a repository need not have
    out, _ = dtbench("report", "--check", code=1)
    assert len(out.splitlines()) == 2
    assert "index.html differs" in out
    assert "README.md is missing" in out
    assert "report.md" not in out


def test_check_reads_the_scores_and_not_the_ledger(here: Path, dtbench: DTBENCH) -> None:
    tiny_ledger(here / "results", {**SCORES, ("valley", "BC"): (1.0, 2.0, 3.0, 4.0)})
    dtbench("report", "--check")


def test_scores_of_another_machine_survive_a_run_here(here: Path, dtbench: DTBENCH) -> None:
    before = (here / "results" / "scores" / "tiny.csv").read_bytes()
    shutil.rmtree(here / "results" / "runs")
    tiny_ledger(here / "results", preset="smoke", digest="c" * 64)
    _, err = dtbench("report", "--suite", "tiny", "--suite", "tiny-smoke")
    assert "These results are kept as tiny-smoke" in err
    assert (here / "results" / "scores" / "tiny.csv").read_bytes() == before
    assert set(pd.read_csv(here / "results" / "scores" / "tiny-smoke.csv")["suite"]) == {"tiny-smoke"}
    assert {"tiny", "tiny-smoke"} <= {path.name for path in (here / "report").iterdir()}


def test_a_suite_that_has_not_finished_is_named_and_the_others_reported(here: Path, dtbench: DTBENCH) -> None:
    tiny_ledger(here / "results", {("valley", "BC"): (None,)}, suite="waiting", digest="d" * 64)
    _, err = dtbench("report")
    assert "waiting: no finished trial to report" in err


def test_a_score_file_without_episodes_is_named(here: Path, dtbench: DTBENCH) -> None:
    (here / "results" / "scores" / "lone.csv").write_text("")
    _, err = dtbench("report", "--suite", "small")
    assert "lone.csv has no archive" in err


def test_a_damaged_archive_is_named(here: Path, dtbench: DTBENCH) -> None:
    shutil.rmtree(here / "results" / "runs")
    (here / "results" / "scores" / "tiny" / "suite.json").write_text("{")
    _, err = dtbench("report", code=2)
    assert "suite.json" in err


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["report", "--suite", "tinny"], "Did you mean 'tiny'"),
        (["report", "--check", "--suite", "tinny"], "Did you mean 'tiny'"),
        (["report", "--check", "--open"], "excludes --open"),
        (["report", "--preset", "cpu"], "--suite"),
        (["report", "--results", "nowhere"], "Run a suite first"),
        (["plot", "--suite", "tinny"], "Did you mean 'tiny'"),
        (["plot", "--suite", "tiny", "--out", "x.txt"], "suffix is one of"),
        (["export", "rliable"], "Name a --suite"),
        (["export", "rliable", "--suite", "tinny"], "Did you mean 'tiny'"),
        (["export", "rliable", "--suite", "tiny", "--out", "x.txt"], "ends in .npz"),
        (["export", "rliable", "--results", "nowhere"], "Run a suite first"),
        (["compare", "results", "results", "--format", "jsn"], "Did you mean 'json'"),
        (["compare", "results", "results", "--suite", "tinny"], "Did you mean 'tiny'"),
        (["compare", "results", "no-such-thing"], "no-such-thing"),
        (["compare", "report", "results"], "report holds no results"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    here: Path, dtbench: DTBENCH, arguments: list[str], printed: str
) -> None:
    before = files(here)
    _, err = dtbench(*arguments, code=2)
    assert printed in err
    assert files(here) == before


def test_a_mistyped_command_names_the_one_that_is_near(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dtbench", "export", "rlable"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "Did you mean 'rliable'" in capsys.readouterr().err


def test_a_figure_is_drawn_from_an_archive_as_from_a_ledger(here: Path, dtbench: DTBENCH) -> None:
    ask = ["plot", "--suite", "tiny", "--task", "hill", "--kind", "bars"]
    dtbench(*ask, "--out", "ledger.svg")
    shutil.rmtree(here / "results" / "runs")
    dtbench(*ask, "--out", "archive.svg")
    assert (here / "ledger.svg").read_bytes() == (here / "archive.svg").read_bytes()


def test_export_prints_the_path_and_what_it_left_out(here: Path, dtbench: DTBENCH) -> None:
    tiny_ledger(here / "ragged", {**SCORES, ("hill", "BC"): (30.0, 31.0, None)})
    out, err = dtbench("export", "rliable", "--results", "ragged")
    assert Path(out.strip()) == (here / "tiny-rliable.npz").resolve()
    assert err.strip() == "left out: contender BC, seed 2 (no hill)"


def test_export_refuses_to_overwrite_before_it_reads_anything(here: Path, dtbench: DTBENCH) -> None:
    Path("mine.npz").write_text("mine")
    _, err = dtbench("export", "rliable", "--suite", "tiny", "--out", "mine.npz", code=2)
    assert "--force" in err
    assert Path("mine.npz").read_text() == "mine"
    dtbench("export", "rliable", "--suite", "tiny", "--out", "mine.npz", "--force")


def test_compare_exits_with_0_where_nothing_became_worse(here: Path, dtbench: DTBENCH) -> None:
    out, _ = dtbench("compare", "results", "results/scores")
    assert "Of 5: 5 identical." in out
    assert "No regression." in out


def test_compare_exits_with_1_on_a_regression_unless_it_is_allowed(here: Path, dtbench: DTBENCH) -> None:
    worse = {**SCORES, ("valley", "BC"): (30.0, 31.0, 32.0)}
    write_archive(tiny_ledger(here / "made", worse), here / "worse")
    out, _ = dtbench("compare", "results", "worse", "--suite", "tiny", code=1)
    assert "REGRESSIONS: tiny: BC on valley." in out
    dtbench("compare", "results", "worse", "--suite", "tiny", "--max-drop", "15")
    dtbench("compare", "worse", "results", "--suite", "tiny", "--fail-below", "0.9")


@pytest.mark.parametrize("kind", ["markdown", "csv", "json"])
def test_compare_prints_what_programs_read(here: Path, dtbench: DTBENCH, kind: str) -> None:
    out, err = dtbench("compare", "results", "results", "--format", kind)
    if kind == "json":
        assert len(json.loads(out)["pairs"]) == 5
    elif kind == "csv":
        assert len(out.splitlines()) == 6
        assert "No regression." in err
    else:
        assert "| suite |" in out


def test_the_help_of_compare_says_the_rule(dtbench: DTBENCH) -> None:
    out, _ = dtbench("compare", "--help")
    assert "regression" in " ".join(out.split())
    assert "wholly below" in " ".join(out.split())


def test_open_hands_the_page_to_the_browser(here: Path, dtbench: DTBENCH, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    dtbench("report", "--suite", "small", "--open")
    assert opened == [(here / "report" / "index.html").as_uri()]
