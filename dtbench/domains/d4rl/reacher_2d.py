"""Reacher2d: the two-link arm of Chen et al. (2021), whose data was never released."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from numpy.typing import NDArray

from dtbench.domains.offscreen import drawn

XML = Path(__file__).parent / "assets" / "reacher_2d.xml"


class Reacher2dEnv(MujocoEnv):
    """A reward of 1 for every step that the fingertip is within an L1 distance of 0.1 of a random goal; no end.

    Observations [12]: sine and cosine of both joints, dt times their velocities, fingertip, goal, their difference.
    """

    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 7}

    def __init__(self, **kwargs: Any) -> None:
        space = spaces.Box(-np.inf, np.inf, (12,), np.float64)
        camera: dict[str, Any] = {"distance": 3.5, "elevation": -90.0, "lookat": np.zeros(3)}
        super().__init__(str(XML), 15, observation_space=space, default_camera_config=camera, **kwargs)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        """Move for 15 steps of 0.01 s."""
        self.do_simulation(np.clip(action, -1.0, 1.0), self.frame_skip)
        tip, goal = self._places()
        reward = 1.0 if np.abs(tip - goal).sum() < 0.1 else 0.0
        return self._observation(), reward, False, False, {}

    def reset_model(self) -> NDArray[np.float64]:
        """Draw joints in [-2, 2], at rest, and a goal uniformly in the ring between radii 0.5 and 1."""
        qpos = self.np_random.uniform(-2.0, 2.0, size=self.model.nq)
        goal = self.np_random.uniform(-1.5, 1.5, size=2)
        while not 0.5 <= np.linalg.norm(goal) <= 1.0:
            goal = self.np_random.uniform(-1.5, 1.5, size=2)
        self.data.mocap_pos[0, :2] = goal
        self.set_state(qpos, np.zeros(self.model.nv))  # type: ignore[no-untyped-call]
        return self._observation()

    def render(self) -> Any:
        """Return a picture in the mode rgb_array, also where there is no display."""
        draw: Callable[[], Any] = super().render
        return drawn("reacher2d", draw) if self.render_mode == "rgb_array" else draw()

    def _places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.data.site("fingertip").xpos[:2].copy(), self.data.body("target").xpos[:2].copy()

    def _observation(self) -> NDArray[np.float64]:
        tip, goal = self._places()
        theta = self.data.qpos
        return np.concatenate([np.sin(theta), np.cos(theta), self.dt * self.data.qvel, tip, goal, tip - goal])
