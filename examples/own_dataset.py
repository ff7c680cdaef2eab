"""A dataset of your own: record CartPole, write a file in D4RL's layout, run a suite on it.

python examples/own_dataset.py [EPISODES]
"""

import sys
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np

import dtbench


def record(episodes: int) -> dict[str, np.ndarray]:
    """Record a policy that leans against the pole's fall, and errs one time in four."""
    rng, env = np.random.default_rng(0), gym.make("CartPole-v1")
    rows = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = int(observation[2] + observation[3] > 0) if rng.random() > 0.25 else int(rng.integers(2))
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, terminated, truncated, following))
            observation, ended = following, terminated or truncated
    keys = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    return dict(zip(keys, map(np.array, zip(*rows, strict=True)), strict=True))


if __name__ == "__main__":
    data = record(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    path = Path("cartpole.hdf5")
    with h5py.File(path, "w") as file:
        for key, values in data.items():
            file[key] = values
    print(f"{path}: {len(data['rewards'])} steps")
    dtbench.run_suite(
        "own-data-discrete",
        preset="smoke",  # without it: minutes
        results="own-results",
        overrides=["tasks=[gym:CartPole-v1]", f"task_options.file={path.absolute()}"],
    )
    scores = dtbench.load_scores("own-results")
    last = scores[scores.step == scores.groupby("trial").step.transform("max")]
    print(last.groupby(["contender", "target"], dropna=False).return_mean.mean().round(1).to_string())
