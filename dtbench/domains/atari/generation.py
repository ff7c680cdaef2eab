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
from dtbench.domains.atari.emulator import MAX_FRAMES, PROTOCOLS, RAM, Protocol, action_count
from dtbench.domains.atari.env import OBSERVATIONS, STACK, AtariVectorEnv
from dtbench.domains.atari.frames import SIZE
from dtbench.domains.mlp_policy import load_mlp, save_mlp
from dtbench.errors import InvalidDataset, MissingDataset

Array = NDArray[np.float32]
Segment = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32], bool]  # frames, actions, raw rewards, over

FEATURES = 2 * RAM
TEMPERATURE = 0.5  # of recorded actions: those that PPO explores with make little sense, and are hard to imitate
POLICIES = Path(__file__).parent / "policies"
STEPS = 500_000  # 1 % of DQN-replay
SEED = 0
RECIPE = 1  # raise it when equal arguments begin to give other data


def features(ram: NDArray[np.uint8], before: NDArray[np.uint8]) -> Array:
    """Return the input of a policy, [B, 256] in [-1, 1]: the bytes [B, 128] and their differences from `before`.

    A byte's difference is taken modulo 256, as positions wrap, and clipped to [-16, 16].
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
            raise InvalidDataset(f"{path} is not a behaviour policy of {FEATURES} features.")
        return RamPolicy(stored.weights, stored.biases)


@dataclass(frozen=True, slots=True)
class Recording:
    """The settings that determine recorded data: equal recordings give equal data."""

    game: str
    steps: int = STEPS
    seed: int = SEED
    protocol: Protocol = PROTOCOLS["official-dt"]
    max_frames: int = MAX_FRAMES  # of an episode

    @property
    def stored_name(self) -> str:
        """The name of the data in the store."""
        slug = f"{self.game}-{self.steps}-seed{self.seed}-{self.protocol.name}-{self.max_frames}"
        return f"generated-atari-{slug}-recipe{RECIPE}"

    def is_stored(self) -> bool:
        """Return whether the store has the data."""
        return (store.root() / self.stored_name / "meta.json").exists()

    def load(self) -> TrajectoryDataset:
        """Open the data, or record and store them first; raise MissingDataset for a game without policies."""
        files = policy_files(self.game)
        with ExitStack() as stack:

            def make() -> TrajectoryDataset:
                store.root().mkdir(parents=True, exist_ok=True)
                scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=store.root(), prefix=".frames."))
                policies = [None, *(RamPolicy.load(POLICIES / self.game / file) for file in files)]
                made = record(self, policies, scratch=Path(scratch))
                return made.with_info({"policies": ["uniform", *files], "recipe": RECIPE})

            # The recorded frames are a mapped file until the store has its own.
            return store.open_or_make(self.stored_name, make)


def record(recording: Recording, policies: Sequence[RamPolicy | None], *, scratch: Path) -> TrajectoryDataset:
    """Record `steps` steps and the rest of the last episode, an equal share by each policy in turn.

    None plays uniformly at random. Episodes are whole, as a truncated one would have a false return-to-go: a policy
    plays until its share and those before it are full. Rewards are clipped to [-1, 1], the raw ones are an extra.
    Frames are written to a file in the directory `scratch`.
    """
    game, protocol, seed = recording.game, recording.protocol, recording.seed
    ends = np.linspace(0, recording.steps, len(policies) + 1)[1:]
    played: list[tuple[NDArray[np.int64], NDArray[np.float32], bool]] = []
    path, written = scratch / "frames.bin", 0
    env = AtariVectorEnv(game, 1, protocol=protocol, max_frames=recording.max_frames)
    with path.open("wb") as file:
        for index, (policy, end) in enumerate(zip(policies, ends, strict=True)):
            rng = generator(seed, 17, index)
            while written < end:
                frames, actions, rewards, over = _episode(env, policy, rng)
                file.write(frames.tobytes())
                played.append((actions, rewards, over))
                written += len(actions)
    lengths = np.array([len(actions) for actions, *_ in played])
    raw = np.concatenate([rewards for _, rewards, _ in played])
    terminals = np.zeros(len(raw), bool)
    terminals[np.cumsum(lengths) - 1] = [over for *_, over in played]
    info = {"game": game, "protocol": protocol.name, "seed": seed, "asked_steps": recording.steps}
    return make_dataset(
        observations=np.memmap(path, np.uint8, "r", shape=(len(raw), SIZE, SIZE)),
        actions=np.concatenate([actions for actions, *_ in played]),
        rewards=raw.clip(-1, 1),
        terminals=terminals,
        lengths=lengths,
        observation_space=OBSERVATIONS,
        action_space=Discrete(action_count(game)),
        info={"source": "generated", **info},
        frame_stack=STACK,
        extras={"raw_rewards": raw},
    )


def _episode(env: AtariVectorEnv, policy: RamPolicy | None, rng: np.random.Generator) -> Segment:
    """Play one episode."""
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


def games_with_policies() -> list[str]:
    """Return the games that dtbench ships policies for."""
    return sorted(path.parent.name for path in POLICIES.glob("*/manifest.json"))


@cache
def policy_files(game: str) -> tuple[str, ...]:
    """Return the files of the policies, worst first; raise MissingDataset where there are none."""
    path = POLICIES / game / "manifest.json"
    if not path.exists():
        raise MissingDataset(
            f"dtbench ships no policies for {game}: it makes data for {', '.join(games_with_policies())}. "
            f"Read DQN-replay shards or a Minari set instead."
        )
    return tuple(json.loads(path.read_text())["policies"])
