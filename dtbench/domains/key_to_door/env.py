"""Key-to-Door: a key in the first room, an empty room, and a door in the third."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dtbench.domains.lockstep import Frame, LockstepVectorEnv, Mask, SingleEnv

# The rooms of Hung et al. (2019), "Optimizing agent behavior over long time scales by transporting
# value", public in google-deepmind/deepmind-research, tvt/pycolab/key_to_door.py. Chen et al. (2021)
# leave the middle room empty and publish no sizes. `k`: the key lies on one of these, `+`: a start.
ROOMS = (
    (
        "###########",
        "###kkkkk###",
        "###kkkkk###",
        "####   ####",
        "###+++++###",
        "###+++++###",
        "###########",
    ),
    (
        "###########",
        "#         #",
        "#         #",
        "#    +    #",
        "#         #",
        "#         #",
        "###########",
    ),
    (
        "###########",
        "#####d#####",
        "####   ####",
        "#### + ####",
        "####   ####",
        "###########",
        "###########",
    ),
)
PHASE_STEPS = (15, 15, 16)  # a uniform random policy then opens the door in 2.95 % of all episodes
HORIZON = sum(PHASE_STEPS)
ACTION_NAMES = ("north", "south", "west", "east")
CELL_NAMES = ("floor", "wall", "key", "door")
FLOOR, WALL, KEY, DOOR = range(4)
VIEW_RADIUS = 2  # an egocentric 5 x 5 view

CELL_PIXELS = 40  # of a picture
COLORS = np.array([(245, 245, 240), (70, 70, 80), (230, 180, 30), (150, 80, 40)], np.uint8)  # by kind of cell
AGENT_COLOR = (40, 90, 200)

MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])


def _cells(room: Sequence[str], symbols: str) -> NDArray[np.int64]:
    """Return row and column of every cell drawn with one of `symbols`, [cells, 2]."""
    return np.array([(r, c) for r, line in enumerate(room) for c, s in enumerate(line) if s in symbols])


def _padded_maps() -> NDArray[np.int8]:
    """Return the kinds of cells of the three rooms, with a margin of wall, so that no view leaves the array."""
    kinds = {"#": WALL, "d": DOOR}
    maps = np.array([[[kinds.get(s, FLOOR) for s in line] for line in room] for room in ROOMS], np.int8)
    margin = (VIEW_RADIUS, VIEW_RADIUS)
    return np.pad(maps, ((0, 0), margin, margin), constant_values=WALL)


_MAPS = _padded_maps()
KEY_CELLS = _cells(ROOMS[0], "k")
START_CELLS = tuple(_cells(room, "+") for room in ROOMS)
_PHASE_OF_STEP = np.repeat(np.arange(3), PHASE_STEPS)
_VIEW = np.arange(2 * VIEW_RADIUS + 1)

OBSERVATION_SPACE = gym.spaces.Box(0, 1, (len(_VIEW), len(_VIEW), len(CELL_NAMES)), np.uint8)
ACTION_SPACE: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(len(ACTION_NAMES))


class KeyToDoorVectorEnv(LockstepVectorEnv):
    """Many episodes in lock step, in numpy: [B, 5, 5, 4] one-hot views, reward 1 at the opened door.

    Actions are 0 north, 1 south, 2 west, 3 east. The key lies somewhere in the first room and vanishes once walked
    over; the other rooms do not show whether it is held. An episode ends (`terminated`) when the door opens or when
    the last phase is over: the phases' clocks belong to the environment, so no episode is `truncated`.
    """

    frames_per_second = 5.0

    def __init__(self, num_envs: int = 1) -> None:
        """Prepare `num_envs` episodes; `reset` starts them."""
        super().__init__(num_envs, OBSERVATION_SPACE, ACTION_SPACE)
        self.generators = [np.random.default_rng() for _ in range(num_envs)]
        self.position = np.zeros((num_envs, 2), np.int64)
        self.key_position = np.zeros((num_envs, 2), np.int64)
        self.has_key = np.zeros(num_envs, bool)
        self.elapsed = np.zeros(num_envs, np.int64)

    def _start(self, rows: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        for row in rows:
            if seeds[row] is not None:
                self.generators[row] = np.random.default_rng(seeds[row])
            key, start = self.generators[row].integers((len(KEY_CELLS), len(START_CELLS[0])))
            self.key_position[row], self.position[row] = KEY_CELLS[key], START_CELLS[0][start]
        self.has_key[rows] = False
        self.elapsed[rows] = 0

    def _advance(self, running: Mask, actions: NDArray[Any], rewards: NDArray[np.float64]) -> None:
        self._move(np.asarray(actions, np.int64), running)
        opened = running & self._at_door()
        rewards[opened] = 1.0
        self.elapsed += running
        self._terminated |= opened | (self.elapsed == HORIZON)
        self._enter_next_room(running & ~self._terminated)

    def _move(self, actions: NDArray[np.int64], playing: Mask) -> None:
        phase = self._phase()
        ahead = self.position + MOVES[actions]
        kind = _MAPS[phase, ahead[:, 0] + VIEW_RADIUS, ahead[:, 1] + VIEW_RADIUS]
        free = playing & ((kind == FLOOR) | ((kind == DOOR) & self.has_key))
        self.position[free] = ahead[free]
        self.has_key |= playing & (phase == 0) & (self.position == self.key_position).all(axis=1)

    def _at_door(self) -> NDArray[np.bool_]:
        rows, columns = self.position.T + VIEW_RADIUS
        at_door: NDArray[np.bool_] = _MAPS[self._phase(), rows, columns] == DOOR
        return at_door

    def _enter_next_room(self, playing: Mask) -> None:
        for phase in (1, 2):
            arriving = playing & (self.elapsed == sum(PHASE_STEPS[:phase]))
            self.position[arriving] = START_CELLS[phase][0]

    def _phase(self) -> NDArray[np.int64]:
        return _PHASE_OF_STEP[np.minimum(self.elapsed, HORIZON - 1)]

    def _observe(self) -> NDArray[np.uint8]:
        rows = self.position[:, 0, None, None] + _VIEW[None, :, None]
        columns = self.position[:, 1, None, None] + _VIEW[None, None, :]
        phase = self._phase()
        kinds = _MAPS[phase[:, None, None], rows, columns]
        key_row, key_column = (self.key_position[:, axis, None, None] + VIEW_RADIUS for axis in (0, 1))
        lying = (phase == 0) & ~self.has_key
        kinds = np.where(lying[:, None, None] & (rows == key_row) & (columns == key_column), np.int8(KEY), kinds)
        one_hot: NDArray[np.uint8] = (kinds[..., None] == np.arange(len(CELL_NAMES))).astype(np.uint8)
        return one_hot

    def _info(self) -> dict[str, Any]:
        return {"has_key": self.has_key.copy(), "phase": self._phase()}

    def _picture(self, row: int) -> Frame:
        """Draw the room that the episode is in, its agent in blue, with the key once it holds it."""
        phase = int(self._phase()[row])
        inner = slice(VIEW_RADIUS, -VIEW_RADIUS)
        kinds = _MAPS[phase, inner, inner].copy()
        if phase == 0 and not self.has_key[row]:
            kinds[tuple(self.key_position[row])] = KEY
        frame = COLORS[kinds].repeat(CELL_PIXELS, axis=0).repeat(CELL_PIXELS, axis=1)
        top, left = (self.position[row] * CELL_PIXELS).tolist()
        quarter, half = CELL_PIXELS // 8, CELL_PIXELS // 2
        frame[top + quarter : top + CELL_PIXELS - quarter, left + quarter : left + CELL_PIXELS - quarter] = AGENT_COLOR
        if self.has_key[row]:
            corner = CELL_PIXELS // 4
            frame[top + corner : top + corner + half, left + corner : left + corner + half] = COLORS[KEY]
        return frame


class KeyToDoorEnv(SingleEnv):
    """A single environment with the rules of `KeyToDoorVectorEnv`."""

    def __init__(self, render_mode: str | None = None) -> None:
        """Prepare an episode; `reset` starts it."""
        super().__init__(KeyToDoorVectorEnv(1), render_mode)
