"""`dtbench status`: the states of trials, read from the ledger alone."""

import json
import os
import platform
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.cli.status import TrialStatus, status_of
from dtbench.errors import UnknownName
from dtbench.ledger import lock
from dtbench.ledger import lock as processes
from dtbench.ledger.store import Ledger, write_bytes, write_json
from dtbench.ledger.trial_spec import TrialSpec
from tests.support.tiny_ledger import finish, spec_of, tiny_ledger

RESULTS = Path("results")
RUNS = RESULTS / "runs"
SPEC = spec_of("valley", "DT", 0)


def printed(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["status", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def only(results: Path = RESULTS) -> TrialStatus:
    (trial,) = status_of(results).trials
    return trial


def running(spec: TrialSpec = SPEC, **facts: Any) -> Path:
    """A trial that this very process is at work on, unless `facts` say otherwise."""
    folder = Ledger(RUNS).create(spec)
    write_json(folder / "running.json", {**processes.this_process(), "from_step": 0, "step": 5, "score": 1.5, **facts})
    return folder


def minutes_ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")


def nobody() -> int:
    """The number of a process that is gone."""
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_an_empty_folder_is_one_line() -> None:
    assert printed() == "results holds no trials. Run a suite: dtbench run --suite NAME\n"
    RUNS.mkdir(parents=True)
    assert len(printed().splitlines()) == 1


def test_done_and_missing_are_counted_by_suite_and_in_all() -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0, None), ("hill", "BC"): (1.0,)})
    assert [line.split() for line in printed().splitlines()] == [
        ["suite", "done", "missing"],
        ["tiny", "2", "1"],
        ["all", "2", "1"],
    ]


def test_a_trial_of_two_suites_is_counted_in_both_and_once_in_all() -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0,)}, suite="one")
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0, None)}, suite="two")
    status = status_of(RESULTS)
    assert status.counts("one")["done"] == status.counts("two")["done"] == status.counts()["done"] == 1
    assert status.trials[0].suites == ("one", "two")


def test_one_suite_may_be_asked_for() -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0,)}, suite="one")
    tiny_ledger(RESULTS, {("hill", "DT"): (50.0, None)}, suite="two")
    assert [line.split()[0] for line in printed("--suite", "two").splitlines()] == ["suite", "two", "all"]
    assert status_of(RESULTS, ["two"]).counts() == {**status_of(RESULTS).counts(), "done": 1}


def test_a_suite_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    tiny_ledger(RESULTS, suite="tiny")
    with pytest.raises(UnknownName, match="Did you mean 'tiny'"):
        status_of(RESULTS, ["tinny"])


def test_trials_of_no_suite_are_listed_too() -> None:
    finish(Ledger(RUNS), SPEC, 1.0)
    assert "(no suite)  1" in printed()


def test_a_trial_whose_process_is_alive_is_running() -> None:
    running(began=minutes_ago(1))
    trial = only()
    assert (trial.state, trial.step, trial.train_steps, trial.score) == ("running", 5, 20, 1.5)
    assert trial.host == platform.node()


def test_the_time_left_is_that_of_this_attempts_pace() -> None:
    running(began=minutes_ago(10), from_step=0, step=5)
    assert only().seconds_left == pytest.approx(1800, rel=0.02)
    assert re.search(r"about (30 min 0|29 min 5)\d s left", printed())
    running(began=minutes_ago(10), from_step=10, step=15)
    assert only().seconds_left == pytest.approx(600, rel=0.02)


@pytest.mark.parametrize(
    "facts",
    [
        {"step": 0},
        {"step": 5, "from_step": 5},
        {"step": 3, "from_step": 5},
        {"began": "yesterday"},
        {"began": None},
        {"began": 5},
        {"began": "2026-01-01T00:00:00"},  # of no time zone
        {"began": "2999-01-01T00:00:00+00:00"},  # a clock that is ahead
        {"step": "many"},
        {"step": float("nan")},
    ],
)
def test_where_the_time_left_cannot_be_said_it_is_not(facts: dict[str, Any]) -> None:
    running(**facts)
    assert only().seconds_left is None
    assert "left" not in printed()


def test_a_trial_whose_process_is_gone_is_interrupted_at_its_last_checkpoint() -> None:
    running(process=nobody())
    assert only().state == "interrupted"
    assert "step 5/20" in printed()


def test_a_number_that_another_process_has_by_now_is_no_sign_of_life() -> None:
    running(born=1)
    assert only().state == "interrupted"


def test_a_trial_of_another_machine_runs_while_a_run_holds_the_ledger() -> None:
    running(host="elsewhere")
    assert only().state == "interrupted"
    with lock.acquire(RUNS):
        assert only().state == "running"
        assert json.loads(printed("--json"))["holder"]["process"] == os.getpid()


def test_a_checkpoint_alone_is_an_interrupted_trial() -> None:
    write_bytes(Ledger(RUNS).create(SPEC) / "checkpoint.pt", b"weights")
    assert only().state == "interrupted"


def test_a_failure_is_one_line_with_its_cause() -> None:
    Ledger(RUNS).record_failure(
        SPEC, cause="out of memory", text="Traceback\n  File\nMemoryError: too large\n", step=7
    )
    trial = only()
    assert (trial.state, trial.cause, trial.message, trial.step) == (
        "failed",
        "out of memory",
        "MemoryError: too large",
        7,
    )
    assert "out of memory: MemoryError: too large" in printed()


def test_divergence_is_no_failure() -> None:
    Ledger(RUNS).record_failure(SPEC, cause="diverged", text="loss is not finite at step 7", step=7)
    assert only().state == "diverged"


def test_a_trial_that_failed_three_times_is_given_up() -> None:
    for _ in range(3):
        Ledger(RUNS).record_failure(SPEC, cause="crash", text="ValueError: no")
    assert only().state == "given up"
    assert "3 times, crash: ValueError: no" in printed()


def test_a_traceback_without_more_is_summarized_by_its_last_line() -> None:
    write_bytes(Ledger(RUNS).create(SPEC) / "error.txt", b"Traceback\nKeyError: 'x'\n\n")
    assert (only().state, only().message) == ("failed", "KeyError: 'x'")


def test_a_trial_that_is_tried_again_is_running() -> None:
    running()
    Ledger(RUNS).record_failure(SPEC, cause="crash", text="ValueError: no")
    assert only().state == "running"


def test_a_done_trial_is_done_whatever_else_lies_there() -> None:
    finish(Ledger(RUNS), SPEC, 1.0)
    running()
    Ledger(RUNS).record_failure(SPEC, cause="crash", text="ValueError: no")
    assert only().state == "done"


@pytest.mark.parametrize("name", ["result.json", "running.json", "failure.json", "spec.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_named_and_the_rest_listed(name: str, content: bytes) -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0, 51.0), ("hill", "BC"): (None,)})
    folder = Ledger(RUNS).create(spec_of("hill", "BC", 0))
    (folder / name).write_bytes(content)
    status = status_of(RESULTS)
    assert status.counts() == {**dict.fromkeys(status.counts(), 0), "done": 2, "damaged": 1}
    assert name in printed()
    assert json.loads(printed("--json"))["totals"]["damaged"] == 1


def test_fields_of_the_wrong_kind_are_named() -> None:
    folder = running(host=["a"], began={"b": 1}, score="high", step=None, from_step=[], process="x", born="y")
    assert (only().state, "running.json: host" in printed()) == ("damaged", True)
    (folder / "running.json").unlink()
    write_json(folder / "failure.json", {"cause": 3, "times": "many", "step": {}, "message": []})
    assert (only().state, "failure.json: cause" in printed()) == ("damaged", True)


def test_a_trial_that_is_there_twice_is_named_and_counted_once() -> None:
    finish(Ledger(RUNS), SPEC, 1.0)
    folder = Ledger(RUNS).folder(SPEC)
    shutil.copytree(folder, folder.with_name(f"Transformer-seed0-{SPEC.key}"))
    assert only().state == "done"
    assert "holds the same trial as" in printed()


def test_a_folder_of_another_key_is_named() -> None:
    finish(Ledger(RUNS), SPEC, 1.0)
    folder = Ledger(RUNS).folder(SPEC)
    folder.rename(folder.with_name("DT-seed0-0123456789abcdef"))
    assert only().state == "damaged"
    assert SPEC.key in printed()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"trials": 5}', '{"trials": [{"seed": 1}]}', "[" * 100_000])
def test_a_damaged_suite_is_named_and_its_trials_listed(content: str) -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0,)})
    (RUNS / "suites" / "tiny.json").write_text(content)
    assert "suites/tiny.json" in printed()
    assert only().suites == ("(no suite)",)


def test_what_a_ledger_says_cannot_steer_a_terminal() -> None:
    spec = spec_of("valley", "\x1b[31mred\nline", 0)
    Ledger(RUNS).record_failure(spec, cause="crash", text="\x1b]0;title\x07 ValueError")
    assert "\x1b" not in printed()
    assert len(printed().splitlines()) == 6


def test_locks_and_scratch_folders_are_no_trials() -> None:
    (RUNS / ".tune-host-1-x" / "trial").mkdir(parents=True)
    (RUNS / ".tune-host-1-x" / "trial" / "result.json").write_text("")
    (RUNS / ".lock").write_text("{}")
    (RUNS / "valley" / "DT-seed0-0000000000000000").mkdir(parents=True)
    assert status_of(RESULTS).trials == ()


def test_nothing_is_written() -> None:
    tiny_ledger(RESULTS)
    running(spec_of("valley", "IQL", 0))
    before = {path: path.stat().st_mtime_ns for path in RESULTS.rglob("*")}
    printed()
    assert {path: path.stat().st_mtime_ns for path in RESULTS.rglob("*")} == before


def test_a_read_only_folder_is_read() -> None:
    tiny_ledger(RESULTS)
    for path in [*RESULTS.rglob("*"), RESULTS]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert "12" in printed()
    finally:
        for path in [RESULTS, *RESULTS.rglob("*")]:
            path.chmod(0o755)


def test_programs_get_every_trial_and_the_totals() -> None:
    tiny_ledger(RESULTS, {("valley", "DT"): (50.0, None)})
    found = json.loads(printed("--json"))
    assert found["totals"]["done"] == found["totals"]["missing"] == 1
    assert found["suites"]["tiny"] == found["totals"]
    assert [(trial["seed"], trial["state"]) for trial in found["trials"]] == [(0, "done"), (1, "missing")]
    assert {"key", "task", "contender", "step", "train_steps", "seconds_left", "cause", "host"} <= found["trials"][
        0
    ].keys()
