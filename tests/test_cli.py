import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

TINY = ["budget=3", "evaluation.episodes=4", "evaluation.every=2", "Random.budget=0"]
RUN = ["run", "--suite", "key-to-door", "--preset", "smoke", *TINY]


def dtbench(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dtbench.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_run_resume_extend_and_report(tmp_path: Path) -> None:
    assert "8 to run" in dtbench(*RUN, "--local").stdout
    table = tmp_path / "results" / "scores" / "key-to-door.csv"
    first = table.read_bytes()
    again = dtbench(*RUN, "--local")
    assert "8 done, 0 to run" in again.stdout
    assert table.read_bytes() == first

    extended = dtbench(*RUN, "--local", "--seeds", "0..1", "--contender", "Random", "--contender", "CQL")
    assert "4 trials, 2 done, 2 to run" in extended.stdout
    scores = pd.read_csv(table)
    transformers = {"DT", "DT predicting returns", "BC", "BC successful", "BC 10%"}
    assert set(scores.contender) == transformers | {"CQL", "CQL history", "Random"}
    assert scores.groupby("contender").seed.nunique()["CQL"] == 2

    page = Path(dtbench("report").stdout.strip())
    assert page == (tmp_path / "report" / "index.html").resolve()
    text = page.read_text()
    assert "BC successful" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    dtbench("report", "--suite", "key-to-door")
    assert before == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    assert {path.suffix for path in before} == {".html", ".md", ".csv", ".tex", ".svg", ".png", ".pdf"}
    dtbench("report", "--check")

    key = scores.trial[0]
    assert "provenance.json" in dtbench("show", key).stdout
    assert "10 finished trials" in dtbench("list", "runs").stdout
    assert "To go: 0 s of trial time" in dtbench("plan", *RUN[1:]).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--suite", "key-to-dor"], "Did you mean 'key-to-door'"),
        ([*RUN, "--contender", "DTT"], "Did you mean 'DT'"),
        ([*RUN, "--task", "key-to-door-2k"], "Known:"),
        ([*RUN, "DT.widht=3"], "'width'"),
        ([*RUN, "DT.width=wide"], "width"),
        ([*RUN, "--seeds", "3..1"], "Write 1..3"),
        ([*RUN, "--preset", "smok"], "'smoke'"),
        ([*RUN, "--local", "--address", "auto"], "exclude"),
        ([*RUN, "--address", "127.0.0.1:1"], "no Ray at 127.0.0.1:1"),
        ([*RUN, "--address", "nonsense"], "ray://host"),
        (["check", "dtt"], "'dt'"),
        (["list", "suits"], "'suites'"),
        (["report"], "Run a suite first"),
        (["report", "--preset", "cpu"], "--suite"),
        (["show", "abc"], "unknown trial"),
        (["run", "--suite", "nowhere.yaml"], "unknown suite file"),
    ],
)
def test_a_mistake_is_one_error_before_any_compute(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = dtbench(*arguments, code=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_an_unknown_flag_is_refused() -> None:
    assert "--sweet" in dtbench("run", "--sweet", "key-to-door", code=2).stderr


def test_lists_and_doctor() -> None:
    assert "key-to-door" in dtbench("list", "suites").stdout
    assert "key-to-door-10k" in dtbench("list", "tasks").stdout
    assert "discrete_cql" in dtbench("list", "algorithms").stdout
    assert "torch" in dtbench("doctor").stdout
    assert "keeps the contract" in dtbench("check", "random").stdout


def test_failed_trials_give_exit_code_1_and_their_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Broken:\n"
        "    def learner(self, dataset, *, seed, device):\n"
        "        raise RuntimeError('no such luck')\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "tasks: [key-to-door-1k]\nseeds: [0]\nevaluation: {episodes: 3}\n"
        "contenders: {Broken: {algorithm: 'broken:Broken', budget: 1}, Random: {algorithm: random, budget: 0}}\n"
    )
    done = dtbench("run", "--suite", "mine.yaml", "--local", code=1)
    assert "no such luck" in done.stderr
    assert pd.read_csv(tmp_path / "results" / "scores" / "mine.csv").contender.tolist() == ["Random"]
    assert "Broken" in Path(dtbench("report").stdout.strip()).read_text()


def test_help_answers_at_once() -> None:
    began = time.monotonic()
    dtbench("--help")
    assert time.monotonic() - began < 5  # a guard against heavy imports, not a measurement
