"""Atari data recorded with the behaviour policies that dtbench ships."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from dtbench.data import cache as store
from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.domains.atari.emulator import RAM, Protocol, action_count
from dtbench.domains.atari.env import OBSERVATIONS, STACK, AtariVectorEnv
from dtbench.domains.atari.frames import SIZE
from dtbench.domains.mlp_policy import load_mlp, save_mlp
from dtbench.errors import InvalidDataset, MissingDataset

Array = NDArray[np.float32]
FEATURES = 2 * RAM


def features(ram: NDArray[np.uint8], before: NDArray[np.uint8]) -> Array:
    """Return what a policy reads, [B, 256] in [-1, 1]: the bytes [B, 128], and by how much each differs from `before`.

    A byte's change is taken modulo 256, as positions wrap, and counts no further than 16 either way.
    """
    change = (ram - before).view(np.int8).clip(-16, 16)
    return np.concatenate([ram / np.float32(127.5) - 1, change / np.float32(16)], axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class RamPolicy:
    """An MLP with ReLU from the RAM to the logits of the actions."""

    weights: Sequence[Array]  # [inputs, outputs] each
    biases: Sequence[Array]  # [outputs] each

    def act(self, seen: Array, uniform: NDArray[np.float64], *, temperature: float = 1.0) -> NDArray[np.int64]:
        """Draw actions [B] for features [B, 256] with uniform numbers [B] from [0, 1); logits are divided first."""
        hidden = seen
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        logits = (hidden @ self.weights[-1] + self.biases[-1]).astype(np.float64)
        likelihood = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        cumulative = likelihood.cumsum(axis=1)
        drawn: NDArray[np.int64] = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
        return drawn.clip(max=logits.shape[1] - 1)

    def save(self, path: Path) -> None:
        """Write the policy in one byte a weight."""
        save_mlp(path, self.weights, self.biases, bytes_per_weight=1)

    @staticmethod
    def load(path: Path) -> "RamPolicy":
        """Read what `save` wrote; raise InvalidDataset for anything else."""
        stored = load_mlp(path)
        if not stored.weights or stored.weights[0].shape[0] != FEATURES:
            raise InvalidDataset(f"{path} is no behaviour policy that reads {FEATURES} features.")
        return RamPolicy(stored.weights, stored.biases)


TEMPERATURE = 0.5  # of the actions of data: what PPO explores with makes little sense in play, and is hard to imitate

Segment = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32], bool]  # frames, actions, raw rewards, over


def record(
    game: str,
    policies: Sequence[RamPolicy | None],
    *,
    steps: int,
    seed: int,
    protocol: Protocol,
    max_frames: int,
    scratch: Path,
) -> TrajectoryDataset:
    """Record `steps` steps and what is left of the last episode, an equal share by each policy in turn.

    None plays uniformly at random. Whole episodes only, as a cut-off one would have a false return-to-go: a policy
    plays until its share and those before it are full, so that what one plays too much the next plays less. Rewards
    are clipped to [-1, 1], the raw ones are an extra. Frames are written to a file in the folder `scratch` as they
    come. Equal arguments give equal data.
    """
    ends = np.linspace(0, steps, len(policies) + 1)[1:]
    played: list[tuple[NDArray[np.int64], NDArray[np.float32], bool]] = []
    path, written = scratch / "frames.bin", 0
    env = AtariVectorEnv(game, 1, protocol=protocol, max_frames=max_frames)
    with path.open("wb") as file:
        for place, (policy, end) in enumerate(zip(policies, ends, strict=True)):
            rng = generator(seed, 17, place)
            while written < end:
                frames, actions, rewards, over = _episode(env, policy, rng)
                file.write(frames.tobytes())
                played.append((actions, rewards, over))
                written += len(actions)
    lengths = np.array([len(actions) for actions, *_ in played])
    raw = np.concatenate([rewards for _, rewards, _ in played])
    terminals = np.zeros(len(raw), bool)
    terminals[np.cumsum(lengths) - 1] = [over for *_, over in played]
    return make_dataset(
        observations=np.memmap(path, np.uint8, "r", shape=(len(raw), SIZE, SIZE)),
        actions=np.concatenate([actions for actions, *_ in played]),
        rewards=raw.clip(-1, 1),
        terminals=terminals,
        lengths=lengths,
        observation_space=OBSERVATIONS,
        action_space=Discrete(action_count(game)),
        info={"source": "generated", "game": game, "protocol": protocol.name, "seed": seed, "asked_steps": steps},
        frame_stack=STACK,
        extras={"raw_rewards": raw},
    )


def _episode(env: AtariVectorEnv, policy: RamPolicy | None, rng: np.random.Generator) -> Segment:
    """Play one game to its end."""
    observations, _ = env.reset(seed=[int(rng.integers(2**31))])
    frames, actions, rewards = [], [], []
    before = ram = env.ram()
    ended = over = False
    while not ended:
        frames.append(observations[0, -1])
        chosen = choose_action(env.game, policy, ram, before, rng.random(1))
        observations, paid, terminated, truncated, _ = env.step(chosen)
        actions.append(int(chosen[0]))
        rewards.append(float(paid[0]))
        before, ram = ram, env.ram()
        over, ended = bool(terminated[0]), bool(terminated[0] or truncated[0])
    return np.stack(frames), np.array(actions), np.array(rewards, np.float32), over


def choose_action(
    game: str,
    policy: RamPolicy | None,
    ram: NDArray[np.uint8],
    before: NDArray[np.uint8],
    uniform: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return actions [B] of the policy, or random ones without it, from uniform numbers [B] in [0, 1)."""
    if policy is None:
        return (uniform * action_count(game)).astype(np.int64)
    return policy.act(features(ram, before), uniform, temperature=TEMPERATURE)


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
    """Return the games whose data can be made here."""
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
    """Return the name under which the store keeps such data."""
    return f"generated-atari-{game}-{steps}-seed{seed}-{protocol.name}-{max_frames}-recipe{RECIPE}"


def is_stored(game: str, *, steps: int, seed: int, protocol: Protocol, max_frames: int) -> bool:
    """Whether it has been made already."""
    name = stored_name(game, steps=steps, seed=seed, protocol=protocol, max_frames=max_frames)
    return (store.root() / name / "meta.json").exists()
