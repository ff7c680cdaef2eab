"""An algorithm of your own: nearest-neighbour cloning, checked and compared with a random policy.

    python examples/own_algorithm.py [STEPS]

In a suite it is named `algorithm: "own_algorithm:NearestNeighbour"`; `dtbench check own_algorithm:NearestNeighbour`
checks it too.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch

import dtbench
from dtbench.testing import check_algorithm


@dataclass(frozen=True)
class NearestNeighbour:
    """Take the action that the nearest known observation was followed by; each update adds observations."""

    batch_size: int = 64  # observations added at each update
    capacity: int = 4096

    def learner(self, dataset, *, seed, device):
        """Start to learn from a dataset."""
        return NearestNeighbourLearner(self, dataset, seed, device)


class NearestNeighbourLearner:
    """The known observations and their actions."""

    context = 1  # steps of the past that `act` reads, the present included
    return_conditioned = False

    def __init__(self, algorithm, dataset, seed, device):
        """Know one batch."""
        self.algorithm, self.device = algorithm, device
        self.sampler = dtbench.TransitionSampler(
            dataset, batch_size=algorithm.batch_size, rng=np.random.default_rng(seed), device=device
        )
        batch = self.sampler.sample()
        self.known, self.actions = batch.observations.float().reshape(len(batch.rewards), -1), batch.actions

    def update(self):
        """Add a batch, and return what is logged: how far it is from what was known."""
        batch = self.sampler.sample()
        observations = batch.observations.float().reshape(len(batch.rewards), -1)
        distance = torch.cdist(observations, self.known).mean()
        self.known = torch.cat([self.known, observations])[-self.algorithm.capacity :]
        self.actions = torch.cat([self.actions, batch.actions])[-self.algorithm.capacity :]
        return {"distance": distance}

    @torch.no_grad()
    def act(self, history):
        """Return actions for the last observation of each history, [B, ...]."""
        present = history.observations[:, -1].float().reshape(len(history.mask), -1)
        return self.actions[torch.cdist(present, self.known).argmin(dim=1)]

    def state_dict(self):
        """Return everything that the next update depends on."""
        rng = self.sampler.rng.bit_generator.state
        return {"known": self.known, "actions": self.actions, "rng": rng}

    def load_state_dict(self, state):
        """Continue from a state."""
        self.known, self.actions = state["known"], state["actions"]
        self.sampler.rng.bit_generator.state = state["rng"]


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    check_algorithm(NearestNeighbour())
    task = dtbench.make_task("graph-0")  # the score: how many starts take a shortest path to the goal
    dataset = task.load_dataset()
    for algorithm in (NearestNeighbour(), dtbench.make_algorithm("random", {})):
        learner = algorithm.learner(dataset, seed=0, device=torch.device("cpu"))
        for _ in range(steps):
            learner.update()
        episodes = dtbench.evaluate(learner, task, episodes=100)
        print(f"{type(algorithm).__name__}: mean score {np.mean(task.score(episodes)):.1f}")
