"""What the command line prints: for a terminal of 80 columns, for programs, and no more than asked for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.table import Table
from typer.testing import CliRunner, Result

import dtbench
from dtbench.cli import plans, progress
from dtbench.cli.run import app, main
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import load_suite, trial_specs

TINY = ["run", "-s", "key-to-door", "--preset", "smoke", "--local", "-t", "key-to-door-1k", "-c", "DT", "-c", "BC"]
SMALL = ["train_steps=2", "evaluation.episodes=3"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in ESCAPES.sub("", text).splitlines()]


def test_the_version_is_printed() -> None:
    assert invoke("--version").stdout == f"dtbench {dtbench.__version__}\n"


def test_a_run_ends_with_its_scores_the_page_and_what_to_watch(tmp_path: Path) -> None:
    *_, scores, page, watch = invoke(*TINY, *SMALL, "--results", "mine").stdout.splitlines()
    assert scores == "scores: mine/scores/key-to-door.csv"
    assert Path(scores.removeprefix("scores: ")).exists()
    assert page == "page:   dtbench report --suite key-to-door --results mine --open"
    command = watch.removeprefix("watch:  dtbench ").split()
    assert command[0] == "play"
    invoke(*command, "--episodes", "1")
    assert list(Path().glob("policy*.gif"))


def test_quiet_prints_the_table_and_the_path(tmp_path: Path) -> None:
    printed = invoke("-q", *TINY, *SMALL).stdout.splitlines()
    assert printed[0].startswith("score at the last checkpoint")
    assert printed[-1] == "scores: results/scores/key-to-door.csv"
    assert not any("done" in line or "preset" in line for line in printed)
    assert "2 trials, 2 done, 0 to run" in invoke(*TINY, *SMALL).stdout  # quiet is of one command


def test_verbose_prints_the_traceback_of_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, traced in ([], False), (["-v"], True):
        monkeypatch.setattr(sys, "argv", ["dtbench", *flags, "run", "-s", "nothing"])
        with pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr().err
        assert ("Traceback" in printed) == traced
        assert printed.splitlines()[-1].startswith("dtbench: unknown suite 'nothing'")


def test_runs_and_plans_are_printed_as_json_alone(tmp_path: Path) -> None:
    plan = json.loads(invoke(*TINY, *SMALL, "--dry-run", "--json").stdout)
    assert (plan["suite"], plan["preset"], plan["trials"], plan["to_run"]) == ("key-to-door", "smoke", 2, 2)
    assert [(row["contender"], row["to run"], row["seconds left"]) for row in plan["rows"]] == [
        ("DT", 1, None),
        ("BC", 1, None),
    ]
    run = json.loads(invoke(*TINY, *SMALL, "--json").stdout)
    assert [(row["task"], row["contender"]) for row in run["scores"]] == [
        ("key-to-door-1k", "DT"),
        ("key-to-door-1k", "BC"),
    ]
    scores = pd.read_csv(run["file"])
    assert set(scores.contender) == {"DT", "BC"}


def test_listings_are_printed_as_json() -> None:
    suites = {suite["name"]: suite for suite in json.loads(invoke("list", "suites", "--json").stdout)}
    assert suites["graph"]["tasks"] == [f"graph-{n}" for n in range(5)]
    tasks = {task["name"]: task for task in json.loads(invoke("list", "tasks", "--json").stdout)}
    assert tasks["hopper-medium-v2"]["sources"][0] == "d4rl"
    assert tasks["graph-0"]["sources"] == ["generated"]
    algorithms = {one["name"]: one for one in json.loads(invoke("list", "algorithms", "--json").stdout)}
    assert algorithms["dt"]["hyperparameters"]["context"] == 20
    assert "code" in algorithms["dt"]["presets"]
    (row,) = json.loads(invoke("data", "ls", "key-to-door-1k", "--json").stdout)
    assert (row["task"], row["source"]) == ("key-to-door-1k", "generated")


def test_a_dataset_s_card_is_printed_as_json() -> None:
    card = json.loads(invoke("data", "show", "key-to-door-1k", "--json").stdout)
    assert (card["task"], card["source"], card["episodes"]) == ("key-to-door-1k", "generated", 1000)
    assert card["score_name"] == "success rate (%)"
    assert card["score"]["mean"] == pytest.approx(100 * card["return_mean"])
    assert sum(card["return_histogram"]["counts"]) == 1000
    assert card["files"] == []


def test_a_trial_is_printed_as_json(tmp_path: Path) -> None:
    invoke(*TINY, *SMALL)
    key = json.loads(invoke("status", "--json").stdout)["trials"][0]["key"]
    trial = json.loads(invoke("status", key, "--json").stdout)
    assert trial["spec"]["task"] == "key-to-door-1k"
    assert trial["means"][0].keys() == {"step", "target", "return", "length", "score"}
    assert trial["result"]["seconds"] > 0
    assert trial["error"] == ""


def test_an_installation_is_printed_as_json() -> None:
    checks = json.loads(invoke("doctor", "--json").stdout)
    assert all(check["passed"] for check in checks)
    assert "python" in {check["check"] for check in checks}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    "arguments",
    [["list", "suites"], ["list", "tasks"], ["data", "ls", "halfcheetah-medium*"], ["data", "ls", "graph-0"]],
)
def test_listings_fit_80_columns(arguments: list[str]) -> None:
    lines = lines_of(invoke(*arguments).stdout)
    assert all(len(line) <= 80 for line in lines if "stored in" not in line)
    assert not any("…" in line for line in lines)


@pytest.mark.usefixtures("narrow")
def test_every_row_of_data_ls_is_whole_in_80_columns() -> None:
    lines = lines_of(invoke("data", "ls", "halfcheetah-medium-expert-*").stdout)
    assert "halfcheetah-medium-expert-delayed-v2" in lines
    at = lines.index("halfcheetah-medium-expert-delayed-v2")
    assert lines[at + 1].split() == ["source", "state", "episodes", "steps", "MiB", "digest"]
    assert [line.split()[0] for line in lines[at + 2 : at + 5]] == ["d4rl", "re-recorded", "generated"]


@pytest.mark.usefixtures("narrow")
def test_scores_and_plans_fit_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("d4rl", preset="smoke")
    rows = [(name, task, 12.5) for name in suite.contenders for task in suite.tasks]
    finals = pd.DataFrame(rows, columns=["contender", "task", "score"])
    plans.print_scores(finals, list(suite.contenders), suite.tasks, {})
    lines = lines_of(capsys.readouterr().out)
    assert all(len(line) <= 80 for line in lines)
    for task in suite.tasks:
        at = lines.index(task)  # a heading, not cut
        assert lines[at + 1].split() == " ".join(suite.contenders).split()
        assert lines[at + 2].split() == ["12.5", "(1)"] * len(suite.contenders)
    graph = load_suite("graph", preset="smoke")
    plans.print_plan(graph, specs := trial_specs(graph), specs, Ledger(tmp_path / "runs"))
    lines = lines_of(capsys.readouterr().out)
    assert all(len(line) <= 80 for line in lines)
    assert not any("…" in line for line in lines)


@pytest.mark.usefixtures("narrow")
def test_a_table_that_fits_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("task", "DT")
    table.add_row("a", "1")
    progress.show(table)
    assert "│ a    │ 1  │" in lines_of(capsys.readouterr().out)


def completed(*words: str) -> list[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "_DTBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["dtbench", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = "import sys; sys.argv = ['dtbench']; from dtbench.cli.run import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--suite", "key"], ["key-to-door", "key-to-door-ablations"]),
        (["run", "--suite", "graph", "--preset", "sm"], ["smoke"]),
        (["run", "--suite", "d4rl", "--contender", "TD"], ["TD3+BC"]),
        (["run", "--suite", "graph", "--task", "graph-"], [f"graph-{n}" for n in range(5)]),
        (["run", "--suite", "nothing", "--preset", "s"], []),
        (["pl"], ["play", "plot"]),
    ],
)
def test_names_are_completed(words: list[str], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_keys_of_trials_are_completed(tmp_path: Path) -> None:
    for key in ("abc1", "abd2"):
        folder = tmp_path / "results" / "runs" / "task" / f"DT-seed0-{key}"
        folder.mkdir(parents=True)
        (folder / "spec.json").touch()
    assert completed("play", "abc") == ["abc1"]
    assert completed("status", "ab") == ["abc1", "abd2"]


def test_a_trials_record_begins_with_its_scores(tmp_path: Path) -> None:
    invoke(*TINY, *SMALL)
    scores = dtbench.load_scores("results")
    printed = invoke("status", scores.trial[0]).stdout
    order = [
        printed.index(part) for part in ("== means over evaluation", "result.json", "spec.json", "provenance.json")
    ]
    assert order == sorted(order)
    assert printed.startswith("== means")


def test_json_has_no_nan() -> None:
    found: Any = plans._finite(float("nan"))
    assert found is None
