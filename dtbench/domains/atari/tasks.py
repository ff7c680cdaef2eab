"""The Atari tasks of Chen et al. (2021), and tasks of any other game."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dtbench.data import minari
from dtbench.data.dataset import TrajectoryDataset
from dtbench.domains.atari import dqn_replay, generation
from dtbench.domains.atari.emulator import MAX_FRAMES, Protocol, action_count, check_game, protocol_of
from dtbench.domains.atari.env import AtariVectorEnv
from dtbench.domains.atari.frames import grey_frames
from dtbench.errors import InvalidValue, MissingDataset, UnknownName
from dtbench.evaluation import TargetUnits
from dtbench.task import MOST_STEPS, DataSource, TargetReturns, Task, check_seed, normalized_score

SCHEME = "atari:"
REWARD_UNITS = ("clipped", "official")
DQN_REPLAY_SEED = 123  # the first of the public code's three


@dataclass(frozen=True, slots=True)
class Game:
    """The paper's numbers of a game."""

    target: float  # Table 8, in clipped rewards
    multiple: float  # of the best return in its data, from its text
    reference: tuple[float, float]  # raw returns of a random player and of a gamer (Table 11)


GAMES = {
    "breakout": Game(target=90, multiple=1, reference=(2, 30)),
    "qbert": Game(target=2500, multiple=5, reference=(164, 13455)),
    "pong": Game(target=20, multiple=1, reference=(-21, 15)),
    "seaquest": Game(target=1450, multiple=5, reference=(68, 42055)),
}


def atari_task(
    game: str,
    *,
    protocol: str = "official-dt",
    reward_units: str = "clipped",
    steps: int = generation.STEPS,
    seed: int | None = None,
    max_frames: int = MAX_FRAMES,
) -> Task:
    """Return the task of one game, "pong" or "atari:pong", of any that ale-py has.

    `protocol` is one of `emulator.PROTOCOLS`, for evaluation and for data made here. Returns of the data and targets
    are sums of rewards clipped to [-1, 1]; with `reward_units` "clipped" a return-to-go falls by the
    clipped reward, with "official" by the raw one, as in the public code. `steps` and `seed` are those of the
    data that is sampled from DQN-replay or made here; an episode ends after `max_frames` frames.
    Raises UnknownName or InvalidValue for others.
    """
    game = check_game(game.removeprefix(SCHEME))
    if reward_units not in REWARD_UNITS:
        raise UnknownName("reward_units", reward_units, REWARD_UNITS)
    for name, value in (("steps", steps), ("max_frames", max_frames)):
        if type(value) is not int or not 1 <= value <= MOST_STEPS:
            raise InvalidValue(f"{name} {value!r:.40} must be a whole number from 1 to {MOST_STEPS}.")
    if seed is not None:
        check_seed(seed)
    how = protocol_of(protocol)
    sources = _sources(game, how, steps=steps, seed=seed, max_frames=max_frames)
    known = GAMES.get(game)
    return Task(
        name=f"{SCHEME}{game}",
        domain="atari",
        load_dataset=sources[-1].load,
        make_env=partial(_play, game, how, max_frames),
        score=partial(normalized_score, reference=known.reference if known else None),
        score_name=f"{'gamer-normalised score' if known else 'raw return'} (protocol {protocol})",
        target_returns=(known.target,) if known else (),
        targets_of=partial(_targets, known),
        target_units=TargetUnits("clipped rewards", _clipped, lower_return_to_go=reward_units == "clipped"),
        description=f"Atari's {game.replace('_', ' ').title()}, four frames an action, stacks of four 84 x 84 frames.",
        sources=sources,
    )


def _sources(
    game: str, protocol: Protocol, *, steps: int, seed: int | None, max_frames: int
) -> tuple[DataSource, ...]:
    """Return DQN-replay's shards, a Minari set on request, and data recorded here."""
    recording = generation.Recording(game, steps, generation.SEED if seed is None else seed, protocol, max_frames)
    return (
        DataSource(
            name="dqn-replay",
            load=partial(_load_shards, game, steps, DQN_REPLAY_SEED if seed is None else seed),
            available=lambda: dqn_replay.find_shards(game) is not None,
        ),
        DataSource(
            name="minari",
            load=partial(_load_minari, game),
            available=partial(minari.is_local, minari_id(game)),
            fetch=partial(minari.fetch_minari, minari_id(game)),
            automatic=False,
        ),
        DataSource(name="generated", load=recording.load, available=recording.is_stored),
    )


def minari_id(game: str) -> str:
    """Return the id of Minari's set of this game."""
    return f"atari/{game.replace('_', '')}/expert-v0"


def _load_shards(game: str, steps: int, seed: int) -> TrajectoryDataset:
    folder = dqn_replay.find_shards(game) or dqn_replay.find_parts(game)
    if folder is None:
        raise MissingDataset(
            f"no DQN-replay shards of {game}: put them into $DQN_REPLAY_DIR/{game.title()}/1/replay_logs. "
            "Their public bucket no longer answers; --source generated makes data of the same shape."
        )
    return dqn_replay.load_shards(folder, game, actions=action_count(game), steps=steps, seed=seed)


def _load_minari(game: str) -> TrajectoryDataset:
    return minari.load_minari_frames(minari_id(game), actions=action_count(game), to_frame=grey_frames)


def _play(game: str, protocol: Protocol, max_frames: int, num_envs: int) -> VectorEnv[Any, Any, Any]:
    return AtariVectorEnv(game, num_envs, protocol=protocol, max_frames=max_frames)


def _targets(game: Game | None, dataset: TrajectoryDataset) -> TargetReturns:
    """Return the paper's target and the data's best return; on other data than DQN-replay its multiple of that."""
    best = float(dataset.returns.max())
    if game is None:
        return (best,)
    target = game.target if dataset.info.get("source") == "dqn-replay" else game.multiple * best
    return tuple(dict.fromkeys((target, best)))


def _clipped(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    return rewards.clip(-1, 1)


TASKS: dict[str, Callable[..., Task]] = {f"{SCHEME}{game}": partial(atari_task, game) for game in GAMES}
