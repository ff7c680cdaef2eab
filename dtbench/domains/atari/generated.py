"""Data made here as a replay buffer holds it: by policies that dtbench trained and ships, from random to the best."""

import json
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from dtbench.data import store
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.domains.atari.behavior import RamPolicy
from dtbench.domains.atari.console import Protocol
from dtbench.domains.atari.recording import record
from dtbench.errors import MissingDataset

POLICIES = Path(__file__).parent / "policies"
STEPS = 500_000  # 1 % of DQN-replay
SEED = 0
RECIPE = 1  # raise it when equal arguments begin to give other data


def load_generated(game: str, *, steps: int, seed: int, protocol: Protocol, max_frames: int) -> TrajectoryDataset:
    """Open the data of this game, or make it and keep it first; MissingDataset for a game without policies."""
    files = policy_files(game)

    with ExitStack() as stack:

        def make() -> TrajectoryDataset:
            store.root().mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=store.root(), prefix=".frames."))
            made = record(
                game,
                [None, *(RamPolicy.load(POLICIES / game / file) for file in files)],
                steps=steps,
                seed=seed,
                protocol=protocol,
                max_frames=max_frames,
                scratch=Path(scratch),
            )
            return made.with_info({"policies": ["uniform", *files], "recipe": RECIPE})

        # The frames that were recorded are a mapped file until the store has its own.
        name = stored_name(game, steps=steps, seed=seed, protocol=protocol, max_frames=max_frames)
        return store.open_or_make(name, make)


def games_with_policies() -> list[str]:
    """The games whose data can be made here."""
    return sorted(path.parent.name for path in POLICIES.glob("*/manifest.json"))


@cache
def policy_files(game: str) -> tuple[str, ...]:
    """Files of the policies that play besides a random one, worst first; MissingDataset where there are none."""
    path = POLICIES / game / "manifest.json"
    if not path.exists():
        raise MissingDataset(
            f"dtbench ships no policies for {game}: it makes data for {', '.join(games_with_policies())}. "
            f"Read DQN-replay shards or a Minari set instead."
        )
    return tuple(json.loads(path.read_text())["policies"])


def stored_name(game: str, *, steps: int, seed: int, protocol: Protocol, max_frames: int) -> str:
    """The name under which the store keeps such data."""
    return f"generated-atari-{game}-{steps}-seed{seed}-{protocol.name}-{max_frames}-recipe{RECIPE}"


def is_stored(game: str, *, steps: int, seed: int, protocol: Protocol, max_frames: int) -> bool:
    """Whether it has been made already."""
    name = stored_name(game, steps=steps, seed=seed, protocol=protocol, max_frames=max_frames)
    return (store.root() / name / "meta.json").exists()
