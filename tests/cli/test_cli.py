"""The command line, in processes of its own where that matters and in this one elsewhere."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dtbench.cli.run import main

Output = subprocess.CompletedProcess[str]
Here = Callable[..., Output]
TINY = ["train_steps=3", "evaluation.episodes=4", "evaluation.every=2", "Random.train_steps=0"]
RUN = ["run", "--suite", "key-to-door", "--preset", "smoke", *TINY]


def dtbench(*arguments: str, code: int = 0) -> Output:
    command = [sys.executable, "-c", "from dtbench.cli.run import main; main()", *arguments]
    return checked(subprocess.run(command, capture_output=True, text=True, timeout=300), code)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """`dtbench` in this process, which has its libraries loaded; what libraries in C say is heard too."""

    def run(*arguments: str, code: int = 0) -> Output:
        monkeypatch.setattr(sys, "argv", ["dtbench", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        found = end.value.code or 0
        assert isinstance(found, int)
        return checked(Output(list(arguments), found, *capfd.readouterr()), code)

    return run


def checked(done: Output, code: int) -> Output:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_run_resume_extend_and_report(tmp_path: Path, here: Here) -> None:
    assert "8 to run" in dtbench(*RUN, "--local").stdout
    table = tmp_path / "results" / "scores" / "key-to-door.csv"
    first = table.read_bytes()
    again = dtbench(*RUN, "--local")
    assert "8 done, 0 to run" in again.stdout
    assert table.read_bytes() == first

    extended = here(*RUN, "--local", "--seeds", "0..1", "--contender", "Random", "--contender", "CQL")
    assert "4 trials, 2 done, 2 to run" in extended.stdout
    scores = pd.read_csv(table)
    transformers = {"DT", "DT predicting returns", "BC", "BC successful", "BC 10%"}
    assert set(scores.contender) == transformers | {"CQL history", "CQL", "Random"}
    assert scores.groupby("contender").seed.nunique()["CQL"] == 2

    page = Path(here("report").stdout.strip())
    assert page == (tmp_path / "report" / "index.html").resolve()
    text = page.read_text()
    assert "BC successful" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    dtbench("report", "--suite", "key-to-door")
    assert before == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    assert {path.suffix for path in before} == {".html", ".json", ".md", ".csv", ".tex", ".png"}
    here("report", "--check")

    key = scores.trial[0]
    assert "provenance.json" in here("status", key).stdout
    assert "To go: 0 s of trial time" in here(*RUN, "--dry-run").stdout


def test_an_archived_suite_is_extended_by_a_seed(tmp_path: Path, here: Here) -> None:
    scores = tmp_path / "results" / "scores"
    command = ["run", "--suite", "key-to-door", "--preset", "smoke", "--local", "-c", "BC 10%", "-c", "Random"]
    here(*command)
    shutil.rmtree(tmp_path / "results" / "runs")  # the archive alone knows of them
    (path,) = scores.glob("*.csv")
    before = path.read_text()
    assert "2 done, 0 to run" in here(*command).stdout
    assert path.read_text() == before
    assert "4 trials, 2 done, 2 to run" in here(*command, "--seeds", "0..1", "--dry-run").stdout
    assert "1 done, 1 to run" in here(*command[:-4], "--seeds", "0..1", "-c", "Random").stdout
    after = pd.read_csv(path)
    assert after.groupby("contender").seed.nunique()[["BC 10%", "Random"]].tolist() == [1, 2]
    assert "evaluation.episodes is 20 there" in here(*command, "evaluation.episodes=30").stderr
    assert len(list(scores.glob("*.csv"))) == 2


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["run", "--suite", "key-to-dor"], "Did you mean 'key-to-door'"),
        ([*RUN, "--contender", "DTT"], "Did you mean 'DT'"),
        ([*RUN, "--task", "key-to-door-2k"], "Known:"),
        ([*RUN, "DT.hiden_size=3"], "'hidden_size'"),
        ([*RUN, "DT.hidden_size=wide"], "hidden_size"),
        ([*RUN, "--seeds", "3..1"], "Write 1..3"),
        ([*RUN, "--preset", "smok"], "'smoke'"),
        (["run", "--suite", "d4rl", "--source", "minary"], "'minari'"),
        ([*RUN, "--local", "--address", "auto"], "exclude"),
        ([*RUN, "--address", "127.0.0.1:1"], "no Ray at 127.0.0.1:1"),
        ([*RUN, "--address", "nonsense"], "ray://host"),
        (["check", "dtt"], "'dt'"),
        (["list", "suits"], "'suites'"),
        (["report"], "Run a suite first"),
        (["report", "--preset", "cpu"], "--suite"),
        (["status", "abc"], "unknown trial"),
        (["run", "--suite", "nowhere.yaml"], "unknown suite file"),
    ],
)
def test_a_mistake_is_one_error_before_any_compute(
    tmp_path: Path, here: Here, arguments: list[str], printed: str
) -> None:
    done = here(*arguments, code=2)
    assert printed in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_mistake_is_one_error_in_a_process_of_its_own_too() -> None:
    done = dtbench(*RUN, "--contender", "DTT", code=2)
    assert done.stderr.startswith("dtbench: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_flag_is_refused(here: Here) -> None:
    assert "--sweet" in here("run", "--sweet", "key-to-door", code=2).stderr


def test_lists_and_doctor(here: Here) -> None:
    assert "key-to-door" in here("list", "suites").stdout
    assert "key-to-door-10k" in here("list", "tasks").stdout
    assert "discrete_cql" in here("list", "algorithms").stdout
    assert "torch" in dtbench("doctor").stdout
    assert "passed all checks" in here("check", "random").stdout


def test_failed_trials_give_exit_code_1_and_their_reason(tmp_path: Path, here: Here) -> None:
    (tmp_path / "broken.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Broken:\n"
        "    def learner(self, dataset, *, seed, device):\n"
        "        raise RuntimeError('no such luck')\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "tasks: [key-to-door-1k]\nseeds: [0]\nevaluation: {episodes: 3}\n"
        "contenders: {Broken: {algorithm: 'broken:Broken', train_steps: 1}, "
        "Random: {algorithm: random, train_steps: 0}}\n"
    )
    done = dtbench("run", "--suite", "mine.yaml", "--local", code=1)
    assert "no such luck" in done.stderr
    assert pd.read_csv(tmp_path / "results" / "scores" / "mine.csv").contender.tolist() == ["Random"]
    assert "Broken" in Path(here("report").stdout.strip()).read_text()


def test_help_answers_at_once() -> None:
    began = time.monotonic()
    dtbench("--help")
    assert time.monotonic() - began < 30  # what it imports is in test_imports.py; here, that it waits for nothing
