"""Many games of one kind in lock step, seen as stacks of four 84 x 84 frames."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dtbench.domains.atari.emulator import MAX_FRAMES, PROTOCOLS, RAM, Console, Protocol, action_count
from dtbench.domains.atari.frames import SIZE, Frames, resize_area, resize_linear

STACK = 4
OBSERVATIONS = Box(0, 255, (STACK, SIZE, SIZE), np.uint8)
RESIZE: dict[str, Callable[[Frames], Frames]] = {"area": resize_area, "linear": resize_linear}


class AtariGames(VectorEnv[NDArray[np.uint8], NDArray[Any], NDArray[Any]]):
    """Play `num_envs` games; a finished game stands still until the next reset. Rewards are raw.

    ale-py's own vector environment knows the protocol `dopamine` alone, shows no RAM and plays on after a game's end;
    where both can, they show the same frames (tests/domains/test_atari_games.py). Threads do not pay: what Python does
    between two frames holds its lock, and two of them played 2000 to 2800 steps a second where one plays 3300.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        protocol: Protocol = PROTOCOLS["official-dt"],
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.num_envs, self.game, self.protocol = num_envs, game, protocol
        self.single_observation_space = OBSERVATIONS
        self.single_action_space = Discrete(action_count(game))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._consoles = [Console(game, protocol, max_frames=max_frames) for _ in range(num_envs)]
        self._stacks = np.zeros((num_envs, STACK, SIZE, SIZE), np.uint8)
        self._rewards = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, bool)
        self._truncated = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin every game, or those of `options["reset_mask"]`; an int seeds game i with seed + i."""
        chosen = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), bool)
        seeds = _seeds(seed, self.num_envs)
        for place in np.flatnonzero(chosen):
            self._consoles[place].begin(seeds[place])
            self._stacks[place] = 0
            self._stacks[place, -1] = self._frame(place)
        self._terminated[chosen], self._truncated[chosen] = False, False
        return self._stacks.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the games that still run; the others give no reward and stay ended."""
        rewards = np.zeros(self.num_envs)
        for place in np.flatnonzero(~(self._terminated | self._truncated)):
            console = self._consoles[place]
            rewards[place] = console.step(int(actions[place]))
            self._stacks[place, :-1] = self._stacks[place, 1:]
            self._stacks[place, -1] = self._frame(place)
            self._terminated[place], self._truncated[place] = console.terminated, console.truncated
        return self._stacks.copy(), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def ram(self) -> NDArray[np.uint8]:
        """The memory of every console, [games, 128]."""
        return np.stack([console.ram() for console in self._consoles]).reshape(-1, RAM)

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing is held that the garbage collector does not free."""

    def _frame(self, place: np.integer[Any]) -> NDArray[np.uint8]:
        return frame_of(self._consoles[place].screens, self.protocol)


def frame_of(screens: Frames, protocol: Protocol) -> Frames:
    """The 84 x 84 frame that an agent sees after an action, from the last two screens, [2, 210, 160]."""
    resize = RESIZE[protocol.resize]
    frame: Frames = resize(screens).max(axis=0) if protocol.resize_first else resize(screens.max(axis=0)[None])[0]
    return frame


def _seeds(seed: int | Sequence[int | None] | None, games: int) -> list[int]:
    if seed is None or isinstance(seed, int | np.integer):
        first = int(np.random.default_rng().integers(2**31)) if seed is None else int(seed)
        return [first + i for i in range(games)]
    drawn = np.random.default_rng().integers(2**31, size=games)
    return [int(drawn[i]) if own is None else int(own) for i, own in enumerate(seed)]
