"""Pictures of episodes, and the environments that gymnasium makes by id."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dtbench import envs
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.key_to_door.env import AGENT_COLOR, CELL_PIXELS, COLORS, KEY, KeyToDoorEnv, KeyToDoorVectorEnv
from dtbench.errors import IncompatibleTask
from dtbench.registry import make_task
from dtbench.task import Task
from tests.support.opengl import OPENGL


class Undrawn(KeyToDoorEnv):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"render_modes": []}


def test_the_ids_are_gymnasiums_in_any_order_of_imports() -> None:
    for code in (
        "import dtbench, gymnasium as gym; gym.register_envs(dtbench.envs); gym.make('dtbench/KeyToDoor-v0')",
        "import gymnasium as gym; gym.make('dtbench.envs:dtbench/Graph-v0', number=3)",
    ):
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("name", [*envs.IDS[:2], pytest.param(envs.IDS[2], marks=OPENGL)])
def test_an_environment_passes_gymnasiums_checks_and_draws(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|different from the unwrapped|Box observation).*")
        env = gym.make(name, render_mode="rgb_array")
        check_env(env.unwrapped, skip_render_check="human" in env.metadata["render_modes"])  # without a display
        env.reset(seed=1)
        before = env.render()
        env.reset(seed=2)
        after = env.render()
        env.close()
    assert isinstance(before, np.ndarray)
    assert isinstance(after, np.ndarray)
    assert before.dtype == np.uint8
    assert before.ndim == 3
    assert not np.array_equal(before, after)


def test_graphs_differ_by_their_number() -> None:
    first, second = (gym.make("dtbench/Graph-v0", number=number).unwrapped for number in (0, 1))
    assert not np.array_equal(first._envs.graph.edges, second._envs.graph.edges)  # type: ignore[attr-defined]


def test_without_a_render_mode_nothing_is_drawn() -> None:
    env = KeyToDoorEnv()
    env.reset(seed=0)
    assert env.render() is None


def test_the_key_is_drawn_where_it_lies_and_in_the_hand_that_holds_it() -> None:
    env = KeyToDoorVectorEnv(1)
    env.reset(seed=3)
    (lying,) = env.render()
    row, column = env.key_position[0] * CELL_PIXELS + CELL_PIXELS // 2
    assert lying[row, column].tolist() == COLORS[KEY].tolist()
    env.has_key[0] = True
    (held,) = env.render()
    assert held[row, column].tolist() != COLORS[KEY].tolist()
    top, left = env.position[0] * CELL_PIXELS
    assert held[top + CELL_PIXELS // 2, left + CELL_PIXELS // 2].tolist() == COLORS[KEY].tolist()
    assert held[top + CELL_PIXELS // 8, left + CELL_PIXELS // 8].tolist() == list(AGENT_COLOR)


@pytest.mark.parametrize(
    "name",
    [
        "graph-0",
        "atari:pong",
        *(pytest.param(name, marks=OPENGL) for name in ("hopper-medium-v2", "reacher2d-medium")),
    ],
)
def test_every_episode_of_a_task_is_drawn(name: str) -> None:
    task: Task = make_task(name)
    env = task.make_env(2)
    env.reset(seed=[1, 2])
    for _ in range(5):
        env.step(env.action_space.sample())
    pictures = env.render()
    env.close()
    assert pictures is not None
    assert [picture.shape for picture in pictures] == [pictures[0].shape] * 2
    assert pictures[0].std() > 1
    assert not np.array_equal(*pictures)


@OPENGL
def test_an_environment_of_gymnasiums_draws_if_it_can() -> None:
    env = GymnasiumVectorEnv(lambda: gym.make("Hopper-v5"), 1)
    env.reset(seed=0)
    (picture,) = env.render()
    assert picture.shape == (480, 480, 3)
    env.close()


def test_an_environment_without_pictures_says_so() -> None:
    env = GymnasiumVectorEnv(Undrawn, 1)
    env.reset(seed=0)
    with pytest.raises(IncompatibleTask, match="rgb_array is not in its render_modes"):
        env.render()
