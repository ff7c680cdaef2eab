"""A Minari set of an environment that only a module of the user registers: `--import` names the module."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from tests.support.own_environment import write_module

minari = pytest.importorskip("minari")
from minari.data_collector.episode_buffer import EpisodeBuffer  # noqa: E402  # after the check that it is installed

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # of minari, and of an environment that is registered again

RUN = [sys.executable, "-c", "from dtbench.cli.run import main; main()", "run", "--suite", "mine.yaml", "--local"]
SUITE = """
name: mine
tasks: ["minari:own/pay-v0"]
seeds: [0]
evaluation: {episodes: 2, every: 5, targets: [4]}
contenders:
  BC: {algorithm: bc, train_steps: 5, hyperparameters: {hidden_size: 8, batch_size: 4}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a set of two episodes, the suite, and the module paying.py."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    write_module("paying")
    monkeypatch.syspath_prepend(str(tmp_path))  # Minari makes the environment once
    monkeypatch.delitem(sys.modules, "paying", raising=False)
    Path("mine.yaml").write_text(SUITE)
    episode = EpisodeBuffer(
        observations=np.zeros((5, 1), np.float32),
        actions=np.arange(4) % 2,
        rewards=np.ones(4),
        terminations=np.zeros(4, bool),
        truncations=np.arange(4) == 3,
        infos={},
    )
    minari.create_dataset_from_buffers(
        "own/pay-v0",
        [episode, episode],
        env=EnvSpec("Pay-v0", entry_point="paying:Pay", max_episode_steps=4),
        observation_space=spaces.Box(-1, 1, (1,), np.float32),
        action_space=spaces.Discrete(2),
        data_format="hdf5",
    )


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_without_the_module_its_set_is_refused_before_training(arguments: tuple[str, ...]) -> None:
    refused = ran(*arguments)
    assert refused.returncode == 2
    (*_, line) = refused.stderr.splitlines()
    assert "minari:own/pay-v0: its environment does not work" in line
    assert "--import MODULE" in line
    assert not list(Path().rglob("spec.json"))


@pytest.mark.parametrize("arguments", [("--import", "paying"), ("imports=[paying]",)], ids=["option", "suite"])
def test_with_the_module_it_trains(arguments: tuple[str, ...]) -> None:
    planned = ran(*arguments, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    trained = ran(*arguments)
    assert trained.returncode == 0, trained.stderr
    assert "4.0 (1)" in trained.stdout
    assert list(Path("results").rglob("result.json"))
