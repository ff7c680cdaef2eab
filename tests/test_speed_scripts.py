"""What compares dtbench's speed with that of others runs, at tiny sizes, and counts right. No test asks for a time."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
PEERS = os.environ.get("DTBENCH_PEERS_PYTHON")


def printed(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--quick", *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("contest")


@pytest.fixture
def docs_speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("docs_speed")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def test_everybody_has_a_turn_in_every_round_and_another_one_begins_each(contest: ModuleType) -> None:
    order: list[str] = []

    def turn(name: str, seconds: float) -> Any:
        def run(count: int) -> float:
            order.append(name)
            return seconds * count

        return run

    found = contest.in_turn({"ours": turn("ours", 0.5), "peer": turn("peer", 1.0)}, rounds=3, turn=2.0)
    assert found == {"ours": [0.5] * 3, "peer": [1.0] * 3}
    assert order[2 * contest.WARM_UP :] == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_a_ratio_is_taken_within_each_round_and_their_median_counts(contest: ModuleType) -> None:
    pairs = [contest.Pair("a step", "ours", "peer", 2.0), contest.Pair("a draw", "ours", "nobody")]
    (row,) = contest.compared(pairs, {"ours": [1.0, 2.0, 1.0], "peer": [1.0, 6.0, 2.0]})
    assert row["times_faster"] == {"median": 2.0, "least": 1.0, "most": 3.0, "rounds": 3}
    assert row["milliseconds"] == {"ours": 1000.0, "peer": 2000.0}
    assert contest.table([row]).splitlines()[1].split()[-1] == "2"
    assert "(missed)" in contest.table([{**row, "goal": 2.5}])


def test_steps_are_compared_with_networks_of_equal_outputs() -> None:
    found = printed("training_step.py")
    assert set(found["greatest_difference_of_outputs"]) == {
        "hopper: transformers",
        "hopper: CORL's layout",
        "atari: official layout",
    }
    assert all(apart < 1e-4 for apart in found["greatest_difference_of_outputs"].values())
    assert {"Hopper, fp32", "Hopper, bf16", "Atari, fp32"} <= {row["what"] for row in found["ratios"]}


CORL = """
import wandb_that_nobody_has


class TransformerBlock(nn.Module):
    pass


class DecisionTransformer(nn.Module):
    def __init__(self, state_dim, action_dim, seq_len, episode_len, embedding_dim, num_layers, num_heads, **dropouts):
        super().__init__()
        self.width: Optional[int] = embedding_dim


@anything
def train():
    pass
"""


def test_only_the_network_of_a_checkout_of_corl_is_read(contest: ModuleType, tmp_path: Path) -> None:
    networks = importlib.import_module("peer_networks")
    sizes = {"observed": 11, "acted": 3, "context": 20, "longest": 1000, "width": 16, "layers": 1, "heads": 1}
    with pytest.raises(RuntimeError, match="has no network that can be made"):
        networks.corl_from(tmp_path, **sizes)
    path = tmp_path / "algorithms" / "offline" / "dt.py"
    path.parent.mkdir(parents=True)
    path.write_text(CORL)
    assert networks.corl_from(tmp_path, **sizes).width == 16


def test_padding_moves_to_the_side_that_a_network_wants(contest: ModuleType) -> None:
    step = importlib.import_module("training_step")
    steps = torch.tensor([[0, 0, 5], [1, 2, 3]])
    mask = torch.tensor([[False, False, True], [True, True, True]])
    left = step.Batch(steps, steps, steps, steps, mask)
    right = step.padded(left, "right")
    assert right.timesteps.tolist() == [[5, 0, 0], [1, 2, 3]]
    assert right.mask.tolist() == [[True, False, False], [True, True, True]]
    assert step.padded(right, "left").timesteps.tolist() == steps.tolist()


def test_updates_and_draws_are_compared_with_d3rlpys_where_it_is() -> None:
    found = printed("td_update.py", "--only", "BC")
    compared = {row["what"] for row in found["ratios"]}
    assert compared == ({"BC", "BC, drawing too", "draw transitions", "draw windows"} if PEERS else set())
    assert {"dtbench: BC", "dtbench: draw windows"} <= set(found["contestants"])


def test_a_guard_that_is_quick_measures_and_judges_nothing() -> None:
    found = printed("guard.py")
    assert found["ratios"][0]["what"] == "Hopper, fp32"
    assert len(found["ratios"]) == (5 if PEERS else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="sizes are read from /proc")
def test_trials_beside_each_other_say_what_they_hold_together() -> None:
    found = printed("memory.py", "--parts", "gym")
    sizes = found["details"]["gym"]["two of DT"]
    assert sizes["four_pss_bytes"] > max(sizes["one_pss_bytes"]) > 0
    assert found["figures"][0]["goal"] == 1.2


def test_a_code_beside_itself_scores_the_same() -> None:
    found = printed("key_to_door.py", "--contenders", "BC", "--before", str(ROOT))
    (cell,) = found["cells"]
    assert cell["score"]["before"] == cell["score"]["now"]
    assert found["ratios"][0]["times_faster"]["median"] > 0


def test_curves_have_a_point_for_each_size_and_an_exponent() -> None:
    found = printed("scale.py", "--axes", "dataset")
    assert [curve["work"] for curve in found["curves"]] == ["open", "transitions", "windows"]
    assert all([point["size"] for point in curve["points"]] == [2000, 4000] for curve in found["curves"])


def test_an_exponent_is_the_slope_of_logarithms(contest: ModuleType) -> None:
    scale = importlib.import_module("scale")
    assert scale.exponent([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert scale.exponent([1, 10, 100], [3, 300, 30_000]) == pytest.approx(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_script_says_one_line() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_the_work_of_a_step_on_atari_is_counted(contest: ModuleType) -> None:
    gpu = importlib.import_module("gpu")
    frame = 4 * 64 * 32 * 400 + 32 * 16 * 64 * 81 + 64 * 9 * 64 * 49 + 3136 * 128
    token = 6 * (12 * 128**2 + 2 * 90 * 128)
    assert gpu.atari_operations(1) == 6 * (30 * frame + 90 * token)


ROW = {
    "what": "a step",
    "ours": "ours",
    "peer": "hopper: them",
    "milliseconds": {"ours": 10.0, "peer": 20.0},
    "times_faster": {"median": 2.0, "least": 1.5, "most": 2.5, "rounds": 5},
    "goal": 1.5,
}
MADE_ON = {"machine": {"cpu_count": 2, "processor": "abacus"}, "versions": {"python": "3.11", "torch": "2"}}
POINTS = [{"size": size, "seconds": size / 1000, "megabytes": 1.0} for size in (10, 100)]
CURVE = {"axis": "episodes", "work": "evaluation", "what": "an evaluation", "exponent": 1.0, "last_exponent": 1.0}


def test_the_page_says_what_lies_in_the_results(docs_speed: ModuleType, tmp_path: Path) -> None:
    assert docs_speed.ratios() == docs_speed.memory() == docs_speed.NOT_MEASURED
    (tmp_path / "training_step.json").write_text(json.dumps({"ratios": [ROW], **MADE_ON}))
    (tmp_path / "scale.json").write_text(json.dumps({"curves": [{**CURVE, "points": POINTS}], **MADE_ON}))
    row = "| Training step | a step | them | 10 | 20 | **2.00** | 1.50 to 2.50 | 1.5 |"
    assert docs_speed.ratios().splitlines()[2:] == [row]
    assert "10 to 100 | an evaluation | 0.01 to 0.1 | 1 to 1 | 1.00 | 1.00 |" in docs_speed.scale()
    assert docs_speed.machine() == "Measured on 2 cores of abacus, Python 3.11, torch 2."


def test_curves_are_drawn_with_the_numbers_of_the_results(docs_speed: ModuleType, tmp_path: Path) -> None:
    docs_speed.draw([{**CURVE, "points": POINTS}], tmp_path / "scale.svg")
    assert "episodes of an evaluation" in (tmp_path / "scale.svg").read_text()


def test_one_table_holds_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "training_step.json").write_text(json.dumps({"ratios": [ROW], **MADE_ON}))
    figure = {"what": "one trial", "value": 2.5, "unit": "GB", "goal": 2.0}
    (tmp_path / "memory.json").write_text(json.dumps({"figures": [figure], **MADE_ON}))
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--table", "--out", str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "training_step: a step" in said
    assert "memory: one trial: 2.50 GB, goal < 2 (missed)" in said
