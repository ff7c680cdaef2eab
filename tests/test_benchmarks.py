"""The benchmarks run and say what they measured, with small sizes here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def printed(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_a_game_played_alone_is_compared_with_the_same_game_of_a_batch() -> None:
    sizes = ("--max-frames", "80", "--episodes", "2", "--targets", "2", "--rounds", "1", "--threads", "1")
    found = printed("atari_rollout.py", *sizes)
    assert (found["games_in_a_batch"], found["batch"]["episodes"], found["alone"]["episodes"]) == (4, 4, 2)
    assert found["compared_episodes"] == 2
    assert found["alone"]["steps"] <= 2 * 80 / 4


def test_a_step_of_a_game_is_held_against_transformers_model_with_equal_weights() -> None:
    found = printed("rollout.py", "--quick")
    assert {row["what"] for row in found["ratios"]} == {"exact", "streaming", "simulators"}
    assert found["greatest_difference_of_actions"] < 1e-4
    assert all(row["times_faster"]["least"] > 0 for row in found["ratios"])


@pytest.mark.skipif(sys.platform != "linux", reason="sizes are read from /proc")
def test_stored_frames_take_a_byte_a_pixel_and_learners_say_what_they_hold(tmp_path: Path) -> None:
    found = printed("atari_memory.py", "--steps", "1500", "--updates", "1", "--out", str(tmp_path / "memory.json"))
    assert 1500 * 84 * 84 < found["disk_bytes"] < 1500 * (84 * 84 + 50)
    for sizes in found["learners"].values():
        assert 0 < sizes["peak_anonymous_bytes"] < sizes["peak_resident_bytes"]
    assert json.loads((tmp_path / "memory.json").read_text()) == found


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_trials_with_ray_are_held_against_trials_without_it(tmp_path: Path) -> None:
    sizes = ("--trials", "2", "--budget", "2", "--idle", "2", "--cores", "2")
    found = printed("sweep_overhead.py", *sizes, "--out", str(tmp_path / "overhead.json"))
    assert found["sizes"] == {"trials": 2, "budget": 2, "cores": 2, "idle": 2}
    assert 0 < found["seconds"]["a_trial_alone"] < found["seconds"]["with_ray"]
    assert {"ratio_to_alone", "ratio_to_processes_at_once", "overhead_seconds"} <= set(found)
    assert json.loads((tmp_path / "overhead.json").read_text()) == found
