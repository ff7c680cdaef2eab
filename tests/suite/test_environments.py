"""Environments are tried before any training, and their source is part of a trial's identity."""

from typing import Any

import gymnasium as gym
import pytest

from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.gymnasium.source import environment_digest
from dtbench.errors import IncompatibleTask


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
