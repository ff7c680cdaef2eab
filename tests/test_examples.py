"""The examples run as they are, at tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PRINTED = {  # example and arguments -> what it prints
    ("quickstart.py", "3"): "target return 1: mean return",
    ("own_algorithm.py", "3"): "NearestNeighbour: mean score",
    ("own_dataset.py", "20"): "BC",
    ("read_results.py",): "key-to-door-1k",
    ("play_policy.py",): "key-to-door.gif: target return 1, return ",
}


def printed(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", PRINTED, ids=lambda arguments: arguments[0])
def test_an_example_runs(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert PRINTED[arguments] in printed(*arguments, cwd=tmp_path)


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in json.loads((EXAMPLES / "key_to_door.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace("steps = 300", "steps = 3"), names)
            assert not cell["outputs"], "the notebook is kept without its outputs"
    assert len(names["episodes"]) == 150
    assert (tmp_path / "key-to-door.gif").read_bytes().startswith(b"GIF89a")
    assert set(names["scores"].contender) > {"DT", "BC", "CQL"}


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_suite_runs_on_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    printed("ray_cluster.py", "results", cwd=tmp_path)
    assert list((tmp_path / "results" / "runs").glob("*/*/result.json"))


def test_every_example_is_run() -> None:
    tested = {name for name, *_ in PRINTED} | {"ray_cluster.py"}
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}
