"""The benchmarks run at tiny sizes and compute ratios right. No test asserts a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import timing, training_step
from benchmarks.run import RESULTS, all_ratios

ROOT = Path(__file__).parents[1]
PEERS = os.environ.get("DTBENCH_PEERS_PYTHON")


def printed(benchmark: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_everybody_has_a_turn_in_every_round_and_another_one_starts_each() -> None:
    order: list[str] = []

    def turn(name: str, seconds: float) -> Any:
        def run(count: int) -> float:
            order.append(name)
            return seconds * count

        return run

    seconds = timing.alternate({"ours": turn("ours", 0.5), "peer": turn("peer", 1.0)}, rounds=3, turn_seconds=2.0)
    assert seconds == {"ours": [0.5] * 3, "peer": [1.0] * 3}
    assert order[2 * timing.WARM_UP_TURNS :] == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_a_ratio_is_taken_within_each_round_and_their_median_counts() -> None:
    pairs = [timing.Pair("a step", "ours", "peer", 2.0), timing.Pair("a draw", "ours", "nobody")]
    (row,) = timing.ratios(pairs, {"ours": [1.0, 2.0, 1.0], "peer": [1.0, 6.0, 2.0]})
    assert row["times_faster"] == {"median": 2.0, "least": 1.0, "most": 3.0, "rounds": 3}
    assert row["milliseconds"] == {"ours": 1000.0, "peer": 2000.0}
    assert timing.table([row]).splitlines()[2].endswith("| 2 |")
    assert "(missed)" in timing.table([{**row, "goal": 2.5}])


def test_steps_are_compared_with_networks_of_equal_outputs() -> None:
    result = printed("training_step")
    differences = result["greatest_difference_of_outputs"]
    assert set(differences) == {"hopper: transformers", "hopper: CORL's layout", "atari: official layout"}
    assert all(apart < 1e-4 for apart in differences.values())
    assert {"Hopper, fp32", "Hopper, bf16", "Atari, fp32"} <= {row["what"] for row in result["ratios"]}


def test_padding_moves_to_the_side_that_a_network_wants() -> None:
    steps = torch.tensor([[0, 0, 5], [1, 2, 3]])
    mask = torch.tensor([[False, False, True], [True, True, True]])
    left = training_step.Batch(steps, steps, steps, steps, mask)
    right = training_step.padded(left, "right")
    assert right.timesteps.tolist() == [[5, 0, 0], [1, 2, 3]]
    assert right.mask.tolist() == [[True, False, False], [True, True, True]]
    assert training_step.padded(right, "left").timesteps.tolist() == steps.tolist()


def test_updates_and_draws_are_compared_with_d3rlpys_where_it_is_installed() -> None:
    result = printed("td_update", "--only", "BC")
    compared = {row["what"] for row in result["ratios"]}
    assert compared == ({"BC 16", "BC 16, drawing too", "draw transitions 16", "draw windows 16"} if PEERS else set())
    assert {"dtbench: BC 16", "dtbench: draw windows 16"} <= set(result["implementations"])


def test_an_evaluation_is_compared_with_transformers_model_of_equal_weights() -> None:
    result = printed("rollout")
    assert {row["what"] for row in result["ratios"]} == {"evaluation", "cache", "simulators"}
    assert result["greatest_difference_of_actions"] < 1e-4
    assert all(row["times_faster"]["least"] > 0 for row in result["ratios"])


def test_a_quick_guard_measures_and_judges_nothing() -> None:
    result = printed("guard")
    assert result["ratios"][0]["what"] == "Hopper, fp32"
    assert len(result["ratios"]) == (5 if PEERS else 1)


def test_one_table_holds_all_results(tmp_path: Path) -> None:
    row = {
        "what": "a step",
        "ours": "ours",
        "peer": "hopper: them",
        "milliseconds": {"ours": 10.0, "peer": 20.0},
        "times_faster": {"median": 2.0, "least": 1.5, "most": 2.5, "rounds": 5},
        "goal": 1.5,
    }
    (tmp_path / "training_step.json").write_text(json.dumps({"ratios": [row]}))
    command = [sys.executable, "-m", "benchmarks.run", "--table", "--out", str(tmp_path)]
    table = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "| training_step: a step | hopper: them | 10 | 20 | **2.00** | 1.50 to 2.50 | 1.5 |" in table


@pytest.mark.skipif(not RESULTS.exists(), reason="needs the repository's results")
def test_the_page_on_speed_has_the_ratios_of_the_results() -> None:
    page = (ROOT / "docs" / "speed.md").read_text()
    assert all(line in page for line in all_ratios(RESULTS).splitlines())


@pytest.mark.extended
@pytest.mark.skipif(
    not (os.environ.get("DTBENCH_JAX_PYTHON") and os.environ.get("DTBENCH_JAX_CORL")),
    reason="DTBENCH_JAX_PYTHON and DTBENCH_JAX_CORL name no JAX-CORL",
)
def test_whole_runs_learn_the_values_that_jax_corl_learns(tmp_path: Path) -> None:
    out = tmp_path / "whole_runs.json"
    command = [sys.executable, "-m", "benchmarks.whole_runs", "--source", "generated", "--data", "100000"]
    command += ["--steps", "2000", "--every", "1000", "--size", "64", "--seeds", "1", "--out", str(out)]
    command += ["--only", "IQL", "TD3+BC"]  # CQL compiles for minutes on the other side
    subprocess.run([*command, "--figure", str(tmp_path / "figure.png")], cwd=ROOT, check=True)
    rows = json.loads(out.read_text())["rows"]
    ratios = {(row["algorithm"], row["side"], row["step"]): row["value_ratio"] for row in rows}
    assert len(rows) == 8
    for algorithm, apart in (("IQL", 0.03), ("TD3+BC", 0.15)):  # TD3+BC's first weights differ
        for step in (1000, 2000):
            theirs = ratios[algorithm, "JAX-CORL", step]
            assert ratios[algorithm, "dtbench", step] == pytest.approx(theirs, rel=apart)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
