"""The robots of the Gym experiments: their environments under three physics, reference scores and target returns."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from dtbench.domains.d4rl.physics import fixed_total_mass, restore_d4rl_physics
from dtbench.errors import UnknownName

Physics = Literal["d4rl", "v4", "v5"]
PHYSICS: tuple[Physics, ...] = ("d4rl", "v4", "v5")
KINDS = ("random", "medium", "medium-replay", "medium-expert", "expert")  # of data
REACHER = "reacher2d"  # the paper's own; its data was never released


@dataclass(frozen=True, slots=True)
class LocomotionEnv:
    """One robot: its environments, reference scores and target returns."""

    name: str
    observation_size: int
    action_size: int
    environments: Mapping[Physics, str]  # "module:class"; d4rl is v4 with its physics restored
    horizon: int  # steps after which an episode is truncated
    reference: tuple[float, float]  # returns that score 0 and 100
    target_returns: tuple[float, ...]  # the paper's own target comes first (Chen et al. 2021, Table 9)

    @property
    def observation_space(self) -> spaces.Box:
        """Unbounded vectors, of the precision that D4RL stores."""
        return spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Torques between -1 and 1."""
        return spaces.Box(-1.0, 1.0, (self.action_size,), np.float32)

    def make(self, physics: Physics = "d4rl") -> MujocoEnv:
        """Make one environment without time limit; raise UnknownName for unknown physics."""
        if physics not in PHYSICS:
            raise UnknownName("physics", physics, PHYSICS)
        module, _, name = self.environments[physics].partition(":")
        env: Any = getattr(importlib.import_module(module), name)()
        if physics == "d4rl":
            restore_d4rl_physics(env.model, total_mass=fixed_total_mass(Path(env.fullpath)))
        made: MujocoEnv = env
        return made


def _gymnasium(name: str, class_name: str) -> dict[Physics, str]:
    versions: dict[Physics, str] = {"d4rl": "v4", "v4": "v4", "v5": "v5"}
    return {physics: f"gymnasium.envs.mujoco.{name}_{version}:{class_name}" for physics, version in versions.items()}


# Reference scores: D4RL's infos.py (Fu et al. 2020), equal for v0, v1 and v2. Targets: Chen et al. (2021), Table 9,
# and their public code. Reacher2d has no reference scores anywhere: 100 is a reward for every step of its episode.
LOCOMOTION_ENVS: dict[str, LocomotionEnv] = {
    robot.name: robot
    for robot in (
        LocomotionEnv(
            name="halfcheetah",
            observation_size=17,
            action_size=6,
            environments=_gymnasium("half_cheetah", "HalfCheetahEnv"),
            horizon=1000,
            reference=(-280.178953, 12135.0),
            target_returns=(6000.0, 12000.0),
        ),
        LocomotionEnv(
            name="hopper",
            observation_size=11,
            action_size=3,
            environments=_gymnasium("hopper", "HopperEnv"),
            horizon=1000,
            reference=(-20.272305, 3234.3),
            target_returns=(3600.0, 1800.0),
        ),
        LocomotionEnv(
            name="walker2d",
            observation_size=17,
            action_size=6,
            environments=_gymnasium("walker2d", "Walker2dEnv"),
            horizon=1000,
            reference=(1.629008, 4592.3),
            target_returns=(5000.0, 2500.0),
        ),
        LocomotionEnv(
            name=REACHER,
            observation_size=12,
            action_size=2,
            environments=dict.fromkeys(PHYSICS, "dtbench.domains.d4rl.reacher_2d:Reacher2dEnv"),
            horizon=100,
            reference=(0.0, 100.0),
            target_returns=(50.0, 76.0, 40.0),
        ),
    )
}


# Only `data verify` uses it, to find the physics of a file. Its observation in D4RL's files ends with 84 contact
# forces, which mujoco_py left at zero.
ANT = LocomotionEnv(
    name="ant",
    observation_size=111,
    action_size=8,
    environments=_gymnasium("ant", "AntEnv"),
    horizon=1000,
    reference=(-325.6, 3879.7),
    target_returns=(),
)


def locomotion_env(name: str) -> LocomotionEnv:
    """Return the robot of this name; raise UnknownName for others."""
    if name not in LOCOMOTION_ENVS:
        raise UnknownName("robot", name, LOCOMOTION_ENVS)
    return LOCOMOTION_ENVS[name]
