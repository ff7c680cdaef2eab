"""An environment of one's own in a module of the working directory, with data and a suite for it."""

from pathlib import Path

import h5py
import numpy as np

MODULE = """
import os, signal, sys, time
import gymnasium as gym
import numpy as np
{on_import}

class Pay(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self):
        {on_made}
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        {on_reset}
        return np.zeros(1, np.float32), {{}}
    def step(self, action):
        return np.zeros(1, np.float32), {reward}, False, False, {{}}

gym.register("Pay-v0", __name__ + ":Pay", max_episode_steps=4)
"""
SUITE = """
name: mine
tasks: ["{task}"]
task_options: {{file: mine.hdf5}}
seeds: [0]
evaluation: {{episodes: 2, every: 5, targets: [4]}}
contenders:
  Random: {{algorithm: random, train_steps: 0}}
"""


def write_module(name: str, **changes: str) -> None:
    """Write NAME.py, which registers Pay-v0; `changes` are its `on_import`, `on_made`, `on_reset` and `reward`."""
    given = {"on_import": "", "on_made": "pass", "on_reset": "pass", "reward": "1.0", **changes}
    Path(f"{name}.py").write_text(MODULE.format(**given))


def write_suite(task: str) -> None:
    """Write mine.yaml, and mine.hdf5 with two episodes of four steps."""
    Path("mine.yaml").write_text(SUITE.format(task=task))
    with h5py.File("mine.hdf5", "w") as file:
        file["observations"] = np.zeros((8, 1), np.float32)
        file["actions"] = np.arange(8) % 2
        file["rewards"] = np.ones(8, np.float32)
        file["terminals"] = np.zeros(8, bool)
        file["timeouts"] = np.arange(8) % 4 == 3
