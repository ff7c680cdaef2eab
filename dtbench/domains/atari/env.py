"""Many episodes of an Atari game in lock step, observed as stacks of four 84 x 84 frames."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from dtbench.domains.atari.emulator import MAX_FRAMES, PROTOCOLS, RAM, AtariEmulator, Protocol, action_count
from dtbench.domains.atari.frames import SIZE, Frames, resize_area, resize_linear
from dtbench.domains.lockstep import Frame, LockstepVectorEnv, Mask

STACK = 4
PICTURE_SCALE = 2  # screen to picture
OBSERVATIONS = Box(0, 255, (STACK, SIZE, SIZE), np.uint8)
RESIZE: dict[str, Callable[[Frames], Frames]] = {"area": resize_area, "linear": resize_linear}


class AtariVectorEnv(LockstepVectorEnv):
    """Run `num_envs` emulators of one game; observations are stacks of four frames, rewards are raw.

    ale-py's vector environment has only the protocol `dopamine`, no RAM, and continues after an episode's end; its
    frames are the same (tests/domains/test_atari_games.py). Threads do not pay, as Python holds its lock between
    frames: two of them took 2000 to 2800 steps a second where one takes 3300.
    """

    frames_per_second = 15.0  # 60 of the console's over four a step

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        protocol: Protocol = PROTOCOLS["official-dt"],
        max_frames: int = MAX_FRAMES,
    ) -> None:
        """Load the game `num_envs` times."""
        super().__init__(num_envs, OBSERVATIONS, Discrete(action_count(game)))
        self.game, self.protocol = game, protocol
        self._emulators = [AtariEmulator(game, protocol, max_frames=max_frames) for _ in range(num_envs)]
        self._stacks = np.zeros((num_envs, STACK, SIZE, SIZE), np.uint8)

    def ram(self) -> NDArray[np.uint8]:
        """Return the memory of every emulator, [num_envs, 128]."""
        return np.stack([emulator.ram() for emulator in self._emulators]).reshape(-1, RAM)

    def close_extras(self, **kwargs: Any) -> None:
        """Do nothing: the garbage collector frees the emulators."""

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        random = np.random.default_rng()
        for row in rows:
            seed = seeds[row]
            self._emulators[row].begin(int(random.integers(2**31)) if seed is None else int(seed))
            self._stacks[row] = 0
            self._stacks[row, -1] = self._frame(row)

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        for row in np.flatnonzero(running):
            emulator = self._emulators[row]
            rewards[row] = emulator.step(int(actions[row]))
            self._stacks[row, :-1] = self._stacks[row, 1:]
            self._stacks[row, -1] = self._frame(row)
            self._terminated[row], self._truncated[row] = emulator.terminated, emulator.truncated

    def _observe(self) -> NDArray[np.uint8]:
        return self._stacks.copy()

    def _picture(self, row: int) -> Frame:
        return self._emulators[row].picture().repeat(PICTURE_SCALE, axis=0).repeat(PICTURE_SCALE, axis=1)

    def _frame(self, row: np.integer[Any]) -> NDArray[np.uint8]:
        return frame_of(self._emulators[row].screens, self.protocol)


def frame_of(screens: Frames, protocol: Protocol) -> Frames:
    """Return the 84 x 84 frame that an agent sees after an action, from the last two screens, [2, 210, 160]."""
    resize = RESIZE[protocol.resize]
    frame: Frames = resize(screens).max(axis=0) if protocol.resize_first else resize(screens.max(axis=0)[None])[0]
    return frame
