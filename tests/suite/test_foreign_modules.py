"""A module that crashes, hangs, ends its process or prints while it is imported or makes its environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtbench import foreign
from dtbench.errors import InvalidValue
from tests.support.own_environment import write_module, write_suite

DTBENCH = [
    sys.executable,
    "-c",
    "from dtbench import foreign; foreign.SECONDS = 8; from dtbench.cli.run import main; main()",
]
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"
NAMED, IMPORTED = "gym:paying:Pay-v0", "gym:Pay-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(
    *arguments: str, on_import: str = "", on_made: str = "pass", task: str = NAMED
) -> subprocess.CompletedProcess[str]:
    write_module("paying", on_import=on_import, on_made=on_made)
    write_suite(task)
    return subprocess.run([*DTBENCH, *arguments], capture_output=True, text=True, timeout=120, check=False)


EXTENDED = pytest.mark.extended
RUN = ("run", "--suite", "mine.yaml", "--local")
SHOW = ("data", "show", NAMED, "file=mine.hdf5")


@pytest.mark.parametrize(
    ("on_import", "message"),
    [
        (CRASH, "it crashed (SIGSEGV) when it was imported"),
        ("os._exit(0)", "it ended the process with code 0 when it was imported"),
        ("print('first'); sys.exit(3)", "SystemExit: 3 (paying.py, line 5)"),
        ("time.sleep(600)", "it takes more than 8 s to be imported"),
        ("os.kill(os.getpid(), 40)", "it crashed (signal 40)"),
    ],
)
@pytest.mark.parametrize(
    "command", [pytest.param(RUN, marks=EXTENDED), pytest.param((*RUN, "--dry-run"), marks=EXTENDED), SHOW]
)
def test_a_module_that_ends_its_import_is_one_line(on_import: str, message: str, command: tuple[str, ...]) -> None:
    outcome = said(*command, on_import=on_import)
    assert outcome.returncode == 2
    (*_, line) = outcome.stderr.splitlines()
    assert f"module 'paying' cannot be imported: {message}" in line
    assert "Traceback" not in outcome.stderr
    assert not list(Path().rglob("spec.json"))


@pytest.mark.parametrize(
    "how", ["--import", pytest.param("imports", marks=EXTENDED), pytest.param("tune", marks=EXTENDED)]
)
def test_a_module_of_an_option_or_a_suite_may_crash_too(how: str) -> None:
    Path("space.yaml").write_text("learning_rate: [0.1, 0.2]\n")
    tune = ("tune", "--suite", "mine.yaml", "-c", "Random", "--space", "space.yaml", "--import", "paying")
    command = {"--import": (*RUN, "--import", "paying"), "imports": (*RUN, "imports=[paying]"), "tune": tune}[how]
    outcome = said(*command, on_import=CRASH, task=IMPORTED)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "module 'paying' cannot be imported: it crashed (SIGSEGV) when it was imported" in line


@pytest.mark.parametrize(
    ("on_made", "message"),
    [
        (CRASH, "it crashed (SIGSEGV) when it was made"),
        ("os._exit(0)", "it ended the process with code 0 when it was made"),
        ("time.sleep(600)", "it takes more than 8 s to be made"),
        ("sys.exit(0)", "gymnasium cannot make this environment: 0"),
    ],
)
@pytest.mark.parametrize("command", [pytest.param(RUN, marks=EXTENDED), SHOW])
def test_an_environment_that_ends_its_process_when_made_is_one_line(
    on_made: str, message: str, command: tuple[str, ...]
) -> None:
    outcome = said(*command, on_made=on_made)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "gymnasium cannot make this environment" in line
    assert message in line


def test_what_a_module_prints_does_not_reach_stdout() -> None:
    outcome = said(*SHOW, on_import="print('welcome')")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == "welcome\n"  # once
    assert outcome.stdout.startswith("task ")


def test_a_missing_environment_asks_for_its_module() -> None:
    outcome = said(*RUN, task=IMPORTED)
    assert outcome.returncode == 2
    assert "--import my_module" in outcome.stderr


def test_data_are_shown_with_an_imported_module() -> None:
    outcome = said("data", "show", IMPORTED, "file=mine.hdf5", "--import", "paying")
    assert outcome.returncode == 0, outcome.stderr
    assert "episodes  2" in outcome.stdout


def test_an_algorithms_file_may_crash() -> None:
    Path("crashing.py").write_text("import os\nos.abort()\n")
    outcome = said("check", "crashing:Mine")
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "crashing cannot be imported: it crashed (SIGABRT) when it was imported" in line


def test_doctor_names_a_plug_in_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plug.dist-info").mkdir()
    Path("plug.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    Path("plug.dist-info/entry_points.txt").write_text("[dtbench.algorithms]\nplug = crashing:Mine\n")
    Path("crashing.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{Path(foreign.__file__).parents[1]}")
    outcome = said("doctor")
    assert outcome.returncode == 1, outcome.stderr
    assert "the plug-in plug = crashing:Mine cannot be loaded: it crashed (SIGABRT)" in outcome.stdout


def test_doctor_tries_the_modules_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_IMPORTS", "paying")
    outcome = said("doctor", on_import="os._exit(0)")
    assert outcome.returncode == 1
    assert "FAIL modules: module 'paying' cannot be imported: it ended the process with code 0" in outcome.stdout


def test_a_worker_of_ray_does_not_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fork", lambda: pytest.fail("forked"))
    monkeypatch.setenv("RAY_RAYLET_PID", "1")
    Path("in_a_worker.py").write_text("import missing_altogether\n")
    with pytest.raises(InvalidValue, match="No module named 'missing_altogether'"):
        foreign.import_plugin("in_a_worker")


def test_the_fork_is_not_left_behind_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    kill = os.kill

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("select.select", interrupted)
    monkeypatch.setattr("os.kill", lambda pid, number: (killed.append(pid), kill(pid, number)))
    with pytest.raises(KeyboardInterrupt):
        foreign.tried(lambda: __import__("time").sleep(60) or "", "imported")
    with pytest.raises(ChildProcessError):
        os.waitpid(killed[0], 0)
