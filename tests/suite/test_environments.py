"""Environments are tried before any training, and their source is part of a trial's identity."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.gymnasium.source import environment_digest
from dtbench.errors import IncompatibleTask
from tests.support.own_environment import write_module, write_suite


class Corridor(gym.Env[int, int]):
    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(2)
    started: Any = (0, {})
    outcome: Any = (1, 1.0, False, False, {})

    def reset(self, **_: Any) -> Any:
        return self.started

    def step(self, action: Any) -> Any:
        return self.outcome


def reset_and_step(games: GymnasiumVectorEnv) -> None:
    games.reset(seed=[0])
    games.step(games.action_space.sample())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("started", 0, "reset.. returns int"),
        ("started", ([0, 0], {}), "an observation has shape"),
        ("outcome", (1, 1.0, False, {}), "step.. returns 4 values"),
        ("outcome", (1, [1.0], False, False, {}), "the reward is"),
        ("outcome", (1, 1.0, "no", False, {}), "terminated is 'no'"),
    ],
)
def test_another_interface_than_gymnasiums_is_named(name: str, value: Any, message: str) -> None:
    env = Corridor()
    setattr(env, name, value)
    games = GymnasiumVectorEnv(lambda: env, 1)
    with pytest.raises(IncompatibleTask, match=message):
        reset_and_step(games)


def test_other_arguments_are_another_environment() -> None:
    made = [gym.make("FrozenLake-v1", is_slippery=slippery) for slippery in (True, True, False)]
    first, same, other = map(environment_digest, made)
    assert first == same != other


RUN = [sys.executable, "-c", "from dtbench.cli.run import main; main()", "run", "--suite", "mine.yaml", "--local"]


def ran(module: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a suite on an environment of one's own, from a module in the working directory."""
    write_module(module, **changes)
    write_suite("gym:Pay-v0" if "--import" in arguments else f"gym:{module}:Pay-v0")
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        ("os._exit(0)", "it ended the process with code 0"),
        ("os.kill(os.getpid(), 11)", "it crashed (SIGSEGV)"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("raise ImportError('no licence')", "ImportError: no licence"),
    ],
)
def test_an_environment_that_ends_its_process_is_one_line_before_training(reset: str, message: str) -> None:
    failed = ran("paying", on_reset=reset)
    assert failed.returncode == 2
    assert f"gym:paying:Pay-v0: its environment does not work: {message}" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert not list(Path("results").rglob("result.json"))


def test_an_edited_environment_is_another_judge() -> None:
    assert ran("paying").returncode == 0
    assert "1 done, 0 to run" in ran("paying").stdout
    edited = ran("paying", reward="100.0")
    assert edited.returncode == 0
    assert "0 done, 1 to run" in edited.stdout
    assert "400.0 (1)" in edited.stdout
    assert "superseded: Random" in edited.stdout


def test_a_module_that_registers_environments_can_be_imported() -> None:
    assert "Pay-v0" in ran("registering").stdout
    imported = ran("registering", "--import", "registering", "--results", "other")
    assert imported.returncode == 0, imported.stderr
    assert "4.0 (1)" in imported.stdout
    missing = ran("registering", "--import", "registring")
    assert missing.returncode == 2
    assert "registring" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
