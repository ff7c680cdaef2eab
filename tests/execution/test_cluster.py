"""A Ray cluster of three nodes on this machine, of which one is lost in the middle of a sweep."""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtbench import foreign
from dtbench.errors import DtbenchError
from dtbench.execution import cluster
from tests.chaos import sweep
from tests.support.own_environment import write_module, write_suite
from tests.support.tiny_ledger import spec_of


@pytest.mark.cluster
@pytest.mark.timeout(1500)
def test_a_sweep_that_loses_a_node_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    file = sweep.write_suite(tmp_path, sweep.suite("lost", train_steps=400, seeds=8))
    assert sweep.run(tmp_path, file, "--local", "--results", "whole").wait(timeout=600) == 0
    results, raylets = tmp_path / "there", set()

    def everybody_works() -> bool:
        raylets.update(sweep.workers(results).values())
        return (len(raylets) == 3 and len(sweep.finished(results)) >= 4) or driver.poll() is not None

    with sweep.nodes(3, tmp_path / "home") as nodes:
        log = tmp_path / "log"
        arguments = ("--address", nodes.address, "--results", str(results), "--checkpoint-minutes", "0.01")
        driver = sweep.run(tmp_path, file, *arguments, log=log)
        assert sweep.wait_until(everybody_works)
        assert len(raylets) == 3, log.read_text()
        before = sweep.finished(results)
        assert nodes.order("remove 0") == "2"
        assert driver.wait(timeout=600) == 0, log.read_text()
    after = sweep.finished(results)
    assert len(after) == 24
    assert {name: after[name] for name in before} == before
    causes = Counter(
        json.loads(line)["cause"]
        for path in results.glob("runs/*/*/worker_failures.jsonl")
        for line in path.read_text().splitlines()
    )
    assert causes["node lost"] >= 1, causes
    assert (results / "scores" / "lost.csv").read_bytes() == (tmp_path / "whole" / "scores" / "lost.csv").read_bytes()


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_module_that_registers_environments_reaches_every_node(tmp_path: Path) -> None:
    write_module("paying")
    write_suite("gym:Pay-v0")
    text = Path("mine.yaml").read_text().replace("seeds: [0]", "seeds: [0, 1, 2, 3]")
    Path("mine.yaml").write_text(text)
    log = tmp_path / "log"
    with sweep.nodes(2, tmp_path / "home") as nodes:
        arguments = ("--address", nodes.address, "--import", "paying")
        assert sweep.run(tmp_path, tmp_path / "mine.yaml", *arguments, log=log).wait(timeout=300) == 0, log.read_text()
    assert "4.0 (4)" in log.read_text()
    assert len(sweep.finished(tmp_path / "results")) == 4


def test_a_node_without_an_imported_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    wrong = cluster.check_node(context(tmp_path, environment={"DTBENCH_IMPORTS": "on_the_driver_only"}))
    assert "module 'on_the_driver_only' cannot be imported" in wrong
    assert "install it (on a cluster: on every node)" in wrong


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pay-v0 is registered again
def test_an_imported_module_travels_to_nodes_that_lack_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    write_module("travelling")
    foreign.add_imports(["travelling"])
    files = cluster.plugin_files([])
    assert set(files) == {"travelling.py"}
    Path("travelling.py").unlink()
    monkeypatch.delitem(sys.modules, "travelling")
    monkeypatch.setattr(sys, "path", list(sys.path))
    elsewhere = context(tmp_path, working_dir=tmp_path / "not here", plugin_files=files, environment=dict(os.environ))
    assert cluster.check_node(elsewhere) == ""
    assert Path(sys.modules["travelling"].__file__ or "").parent == Path.cwd() != tmp_path


def context(tmp_path: Path, **changes: Any) -> cluster.RunContext:
    plain: dict[str, Any] = {
        "run_id": "0123",
        "root": tmp_path,
        "remote": None,
        "is_local": False,
        "lock_holder": None,
        "environment": {},
        "working_dir": tmp_path,
        "plugin_files": {},
        "versions": cluster.versions(),
        "datasets": [],
        "stop_signal": "",
        "checkpoint_seconds": 60.0,
    }
    return cluster.RunContext(**{**plain, **changes})


def test_a_node_with_another_installation_is_refused_with_the_differences(tmp_path: Path) -> None:
    wanted = {**cluster.versions(), "torch": "1.0", "code": "0123"}
    wrong = cluster.check_node(context(tmp_path, versions=wanted))
    assert "torch" in wrong
    assert "the driver has 1.0" in wrong
    assert "Install the same on all nodes" in wrong
    assert cluster.check_node(context(tmp_path)) == ""


def test_a_node_that_does_not_see_the_results_is_refused(tmp_path: Path) -> None:
    wrong = cluster.check_node(context(tmp_path, lock_holder={"host": "driver"}))
    assert "does not see the results" in wrong
    assert "s3://" in wrong


def test_a_nodes_data_are_read_whole_and_must_be_the_planned_ones(tmp_path: Path) -> None:
    wanted = replace(spec_of("key-to-door-1k", "DT", 0, digest="0" * 64), dataset_source="generated")
    wrong = cluster.check_node(context(tmp_path, datasets=[wanted]))
    assert "key-to-door-1k" in wrong
    assert "planned 000000000000" in wrong


def test_plug_in_files_travel_to_nodes_that_lack_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    files = cluster.plugin_files([spec_of("mine:task", "DT", 0)])
    assert files == {"mine.py": b"x = 1\n"}
    monkeypatch.chdir(tmp_path)
    cluster.apply_environment(context(tmp_path, working_dir=tmp_path / "not here", plugin_files=files))
    assert Path("mine.py").read_text() == "x = 1\n"
    assert Path.cwd() != tmp_path


def test_a_node_keeps_its_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"DTBENCH_DATA": "own"})
    cluster.apply_environment(context(tmp_path, environment={"DTBENCH_DATA": "the driver's", "DTBENCH_OFFLINE": "1"}))
    assert os.environ["DTBENCH_DATA"] == "own"
    assert os.environ["DTBENCH_OFFLINE"] == "1"
    cluster.apply_environment(context(tmp_path, environment={"DTBENCH_DATA": "the driver's"}, is_local=True))
    assert os.environ["DTBENCH_DATA"] == "the driver's"


@pytest.mark.parametrize("address", ["", "local", "here", "host:99999999", "ray://", "a b:1", "host:"])
def test_what_is_not_an_address_is_an_error_of_one_line(address: str) -> None:
    with pytest.raises(DtbenchError, match="write auto, host:6379") as caught:
        cluster.check_address(address)
    assert "\n" not in str(caught.value)


def test_an_address_where_nobody_listens_is_an_error_at_once() -> None:
    with pytest.raises(DtbenchError, match="ray start --head"):
        cluster.check_address("127.0.0.1:1")


def test_a_token_that_lies_where_ray_looks_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    cluster.use_token()
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    cluster.use_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster.use_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
