"""An emulator of the Arcade Learning Environment under one of two protocols, with its frames and its RAM."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import ale_py
import numpy as np
from ale_py import roms
from numpy.typing import NDArray

from dtbench.errors import UnknownName

FRAME_SKIP = 4  # frames an action lasts
MAX_FRAMES = 108_000  # of an episode: half an hour of play
SCREEN = (210, 160)
RAM = 128


@dataclass(frozen=True, slots=True)
class Protocol:
    """The choices in which papers differ between emulator and agent."""

    name: str
    sticky: float  # probability that a frame repeats the action of the frame before
    max_noops: int  # an episode begins with fewer no-ops than this
    resize: Literal["area", "linear"]  # of a frame to 84 x 84
    resize_first: bool  # resize both frames, then take the larger of each pixel; or the other way round


# Castro et al. (2018), whose agents made the DQN-replay data and the CQL, REM and QR-DQN numbers of Chen et al.;
# and the environment of the public code of Chen et al. (2021), which made their DT and BC numbers.
PROTOCOLS = {
    "dopamine": Protocol("dopamine", sticky=0.25, max_noops=0, resize="area", resize_first=False),
    "official-dt": Protocol("official-dt", sticky=0.0, max_noops=30, resize="linear", resize_first=True),
}


class AtariEmulator:
    """One game, `FRAME_SKIP` frames an action; equal seeds and actions give equal episodes."""

    def __init__(self, game: str, protocol: Protocol, *, max_frames: int = MAX_FRAMES) -> None:
        self.game, self.protocol = game, protocol
        self.screens = np.zeros((2, *SCREEN), np.uint8)  # the last two frames of the last action
        self._ale = _quiet_interface()
        self._ale.setInt("max_num_frames_per_episode", max_frames)
        self._ale.setFloat("repeat_action_probability", protocol.sticky)
        self._load(0)
        self._actions = self._ale.getMinimalActionSet()

    def begin(self, seed: int) -> None:
        """Start an episode; the seed decides the first no-ops and where actions stick."""
        if self.protocol.sticky:
            self._load(seed)  # the emulator reads its seed only when it loads a game
        self._ale.reset_game()
        noops = int(np.random.default_rng(seed).integers(self.protocol.max_noops)) if self.protocol.max_noops else 0
        for _ in range(noops):
            self._ale.act(self._actions[0])
        self.screens[0] = 0
        self._ale.getScreenGrayscale(self.screens[1])

    def step(self, action: int, *, seen: bool = True) -> float:
        """Hold the action for four frames, or until the game is over; return the sum of the raw rewards.

        With `seen` the screens of the last two frames are copied; a frame that was not played is black.
        """
        ale, key, reward = self._ale, self._actions[action], 0.0
        if seen:
            self.screens[:] = 0
        for frame in range(FRAME_SKIP):
            reward += ale.act(key)
            place = frame - FRAME_SKIP + 2
            if seen and place >= 0:
                ale.getScreenGrayscale(self.screens[place])
            if ale.game_over():
                break
        return reward

    @property
    def terminated(self) -> bool:
        """True where the game is over."""
        return bool(self._ale.game_over(with_truncation=False))

    @property
    def truncated(self) -> bool:
        """True where the episode reached its most frames."""
        return bool(self._ale.game_truncated())

    @property
    def lives(self) -> int:
        """Lives that are left; 0 in games without."""
        return int(self._ale.lives())

    def ram(self) -> NDArray[np.uint8]:
        """Return all 128 bytes of memory."""
        memory: NDArray[np.uint8] = self._ale.getRAM()
        return memory

    def picture(self) -> NDArray[np.uint8]:
        """Return the screen in colours, [210, 160, 3]."""
        screen: NDArray[np.uint8] = self._ale.getScreenRGB()
        return screen

    def _load(self, seed: int) -> None:
        self._ale.setInt("random_seed", int(seed) % (2**31 - 1))
        rom = roms.get_rom_path(check_game(self.game))
        assert rom is not None  # None is for unknown games, which check_game refuses
        self._ale.loadROM(rom)


def _quiet_interface() -> ale_py.ALEInterface:
    """Return a new interface that prints errors alone, not the name of every game that it loads."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py.ALEInterface()


@cache
def action_count(game: str) -> int:
    """Return how many actions the game has."""
    return len(AtariEmulator(game, PROTOCOLS["official-dt"])._actions)


def protocol_of(name: str) -> Protocol:
    """Return the protocol of this name; raise UnknownName for others."""
    if name not in PROTOCOLS:
        raise UnknownName("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def check_game(name: str) -> str:
    """Return the name of a game; raise UnknownName where ale-py has none of that name."""
    if name not in roms.get_all_rom_ids():
        raise UnknownName("Atari game", name, roms.get_all_rom_ids())
    return name
