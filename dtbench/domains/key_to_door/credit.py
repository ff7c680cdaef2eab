"""What a critic has learnt of Key-to-Door: which return it predicts, what it attends to (Chen et al. 2021, Fig. 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtbench.algorithm import History, Learner
from dtbench.data.dataset import TrajectoryDataset
from dtbench.domains.key_to_door.data import random_walks
from dtbench.domains.key_to_door.env import HORIZON, KEY, MOVES, PHASE_STEPS, VIEW_RADIUS
from dtbench.domains.key_to_door.exact import success_probabilities

HELD_OUT_SEED = 5000  # of walks that no task and no choice of hyperparameters has seen
HELD_OUT_WALKS = 4000
OUTCOMES = ("no key", "key, no door", "door")
ENOUGH = 10  # episodes that a mean over them is drawn from, at least
BATCH = 200  # episodes at a time
Z95 = 1.96
NEAR = 2  # steps around an event

Curve = NDArray[np.float64]


class Critic(Protocol):
    """Tells returns from histories; see `dtbench.decision_transformer.critic`."""

    values: NDArray[np.float64]  # the returns it tells apart

    def probabilities(self, history: History) -> Tensor:
        """Return P(return = value) at every step, [B, T, values]."""
        ...

    def attention(self, history: History) -> Tensor:
        """Return what the prediction of each step attends to, [layers, B, heads, T, T]."""
        ...


@runtime_checkable
class CriticLearner(Protocol):
    """A learner that may have a critic."""

    def critic(self) -> Critic | None:
        """Return the present critic, independent of the learner; None where it predicts no returns."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Walks:
    """Whole episodes side by side, zeros after their end."""

    observations: NDArray[np.uint8]  # [E, HORIZON, 5, 5, 4]
    actions: NDArray[np.int64]  # [E, HORIZON]
    lengths: NDArray[np.int64]  # [E]
    opened: NDArray[np.bool_]  # [E]: the door
    key_steps: NDArray[np.int64]  # [E]: the step that walked onto the key; -1 where none did

    @property
    def outcomes(self) -> NDArray[np.int64]:
        """Return each episode's index in OUTCOMES, [E]."""
        return np.where(self.opened, 2, np.where(self.key_steps >= 0, 1, 0))

    @property
    def played(self) -> NDArray[np.bool_]:
        """Return whether the episode was still going on, [E, HORIZON]."""
        mask: NDArray[np.bool_] = np.arange(HORIZON) < self.lengths[:, None]
        return mask

    def history(self, episodes: NDArray[np.int64]) -> History:
        """Return these episodes as a critic reads them; what stands after an episode's end is to be ignored."""
        shape = (len(episodes), HORIZON)
        return History(
            observations=torch.from_numpy(self.observations[episodes]),
            actions=torch.from_numpy(self.actions[episodes]),
            returns_to_go=torch.zeros(shape),
            timesteps=torch.arange(HORIZON).expand(shape),
            mask=torch.ones(shape, dtype=torch.bool),
        )


def inspect_credit(
    learner: Learner, dataset: TrajectoryDataset, *, walks: int = HELD_OUT_WALKS, seed: int = HELD_OUT_SEED
) -> Mapping[str, Any]:
    """Return what the learner's critic says of random walks that it did not learn from; {} where it has no critic.

    `predictions`: by outcome, the mean probability of success at every step with its 95 % interval over episodes,
    beside the exact probability given the true state. `calibration`: Brier scores. `episode`: attention in the first
    successful walk. `attention`: the same averaged over all successful walks, by what happened at a step.
    """
    critic = learner.critic() if isinstance(learner, CriticLearner) else None
    if critic is None or learner.context < HORIZON or 1.0 not in critic.values:
        return {}
    held_out = side_by_side(random_walks(walks, seed=seed))
    predicted = predict_success(critic, held_out)
    exact = success_probabilities(walks, seed=seed)
    inspection = {
        "kind": "credit",
        "held_out": {"walks": walks, "seed": seed, "success_rate": _number(held_out.opened.mean())},
        "phases": list(PHASE_STEPS),
        "predictions": [predictions(held_out, predicted, exact, outcome=number) for number in range(len(OUTCOMES))],
        "calibration": calibration(held_out, predicted, exact, base_rate=float((dataset.returns > 0).mean())),
    }
    successes = np.flatnonzero(held_out.opened)
    if len(successes):
        attention = attend(critic, held_out, successes)
        inspection["episode"] = one_episode(held_out, predicted, attention[0], episode=int(successes[0]))
        inspection["attention"] = by_event(held_out, attention, successes)
    return inspection


def side_by_side(data: TrajectoryDataset) -> Walks:
    """Return the episodes of a dataset with what happened in them, read off its observations and actions."""
    observations = np.zeros((data.num_episodes, HORIZON, *data.observations.shape[1:]), np.uint8)
    actions = np.zeros((data.num_episodes, HORIZON), np.int64)
    played = np.arange(HORIZON) < data.lengths[:, None]
    observations[played], actions[played] = data.observations, data.actions
    return Walks(observations, actions, data.lengths, data.returns > 0, key_steps(observations, actions))


def key_steps(observations: NDArray[np.uint8], actions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the step of each episode that walks onto the key, [E] from [E, T, ...]; -1 where there is none."""
    ahead = VIEW_RADIUS + MOVES[actions]  # the player stands in the middle of the view
    episode, step = np.indices(actions.shape)
    taken = observations[episode, step, ahead[..., 0], ahead[..., 1], KEY] == 1
    return np.where(taken.any(axis=1), taken.argmax(axis=1), -1)


def predict_success(critic: Critic, walks: Walks) -> Curve:
    """Return P(return = 1) at every step of every episode, [E, HORIZON]."""
    place = int(np.flatnonzero(critic.values == 1.0)[0])
    parts = np.array_split(np.arange(len(walks.lengths)), -(-len(walks.lengths) // BATCH))
    found = [critic.probabilities(walks.history(part))[..., place].double().cpu().numpy() for part in parts]
    return np.concatenate(found)


def attend(critic: Critic, walks: Walks, episodes: NDArray[np.int64]) -> Curve:
    """Return what each step's prediction attends to, means over heads, [episodes, layers, HORIZON, HORIZON]."""
    parts = np.array_split(episodes, -(-len(episodes) // BATCH))
    found = [critic.attention(walks.history(part)).mean(dim=2).double().cpu().numpy() for part in parts]
    return np.concatenate(found, axis=1).swapaxes(0, 1)


def predictions(walks: Walks, predicted: Curve, exact: Curve, *, outcome: int) -> dict[str, Any]:
    """Return mean predictions of the episodes with this outcome, at each step that ENOUGH of them reached."""
    chosen = walks.outcomes == outcome
    played = walks.played[chosen]
    counts = played.sum(axis=0)
    last = int((counts >= ENOUGH).sum())
    ours = [predicted[chosen][played[:, step], step] for step in range(last)]
    error = [Z95 * own.std(ddof=1) / np.sqrt(len(own)) for own in ours]
    return {
        "outcome": OUTCOMES[outcome],
        "episodes": int(chosen.sum()),
        "steps": counts[:last].tolist(),
        "mean": [_number(own.mean()) for own in ours],
        "low": [_number(max(0.0, own.mean() - e)) for own, e in zip(ours, error, strict=True)],
        "high": [_number(min(1.0, own.mean() + e)) for own, e in zip(ours, error, strict=True)],
        "exact": [_number(exact[chosen][played[:, step], step].mean()) for step in range(last)],
    }


def calibration(walks: Walks, predicted: Curve, exact: Curve, *, base_rate: float) -> dict[str, Any]:
    """Return Brier scores at four moments, and the last prediction by outcome.

    `base_rate` is the success rate of the data that the critic learned from: what a critic that looks at nothing
    would say. `exact` is the best that anyone who knew the true state could reach.
    """
    everyone, last = np.arange(len(walks.lengths)), walks.lengths - 1
    moments = {
        "first step": np.zeros_like(last),
        "first step in the empty room": np.full_like(last, PHASE_STEPS[0]),
        "first step in the last room": np.full_like(last, sum(PHASE_STEPS[:2])),
        "last step": last,
    }
    happened = walks.opened.astype(np.float64)
    scores = [
        {
            "moment": name,
            "brier": _number(np.mean((predicted[everyone, steps] - happened) ** 2)),
            "brier_base_rate": _number(np.mean((base_rate - happened) ** 2)),
            "brier_exact": _number(np.mean((exact[everyone, steps] - happened) ** 2)),
            "mean_prediction": _number(predicted[everyone, steps].mean()),
        }
        for name, steps in moments.items()
    ]
    final, outcomes = predicted[everyone, last], walks.outcomes
    by_outcome = {
        name: _number(final[outcomes == number].mean()) for number, name in enumerate(OUTCOMES) if number in outcomes
    }
    return {"base_rate": _number(base_rate), "moments": scores, "last_prediction": by_outcome}


def one_episode(walks: Walks, predicted: Curve, attention: Curve, *, episode: int) -> dict[str, Any]:
    """Return what was predicted at every step of one walk, and what the predictions attended to.

    `superimposed` holds a row for each step: its attention to itself and to the steps before it.
    """
    length = int(walks.lengths[episode])
    last = attention[:, length - 1, :length]
    mean = attention.mean(axis=0)
    return {
        "number": episode,
        "length": length,
        "key_step": int(walks.key_steps[episode]),
        "door_step": length - 1,
        "predicted": _numbers(predicted[episode, :length]),
        "attention": _numbers(last.mean(axis=0)),
        "layers": [_numbers(layer) for layer in last],
        "superimposed": [_numbers(mean[step, : step + 1]) for step in range(length)],
    }


def by_event(walks: Walks, attention: Curve, episodes: NDArray[np.int64]) -> dict[str, Any]:
    """Return attention by what happened at the attended step, means over episodes, layers and heads.

    `last`: of the prediction of the last step, which reaches the door; `layers`: the same, layer by layer;
    `empty_room`: of the predictions in the empty room. `other` is a mean over the steps that are no event's,
    `uniform` what even attention would give to one step. `near_key`: `last` from NEAR steps before the key to NEAR
    after it.
    """
    rows = [
        _Looks(attention[place], int(walks.key_steps[e]), int(walks.lengths[e])) for place, e in enumerate(episodes)
    ]
    layers = range(attention.shape[1])
    return {
        "episodes": len(episodes),
        "last": _means([row.last() for row in rows]),
        "empty_room": _means([row.empty_room() for row in rows]),
        "layers": [_means([row.last(layer) for row in rows]) for layer in layers],
        "near_key": _means([row.near_key() for row in rows if row.key >= NEAR]),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Looks:
    """The attention of one successful walk, [layers, HORIZON, HORIZON]."""

    attention: Curve
    key: int
    length: int

    def last(self, layer: int | None = None) -> dict[str, float]:
        weights = self._mean(layer)[self.length - 1, : self.length]
        other = np.delete(weights, [self.key, self.length - 1])
        return {
            "key": float(weights[self.key]),
            "door": float(weights[-1]),
            "other": float(other.mean()),
            "uniform": 1 / self.length,
        }

    def empty_room(self) -> dict[str, float]:
        steps = np.arange(PHASE_STEPS[0], sum(PHASE_STEPS[:2]))
        rows = self._mean()[steps]
        return {
            "key": float(rows[:, self.key].mean()),
            "other": float(((1 - rows[:, self.key]) / steps).mean()),
            "uniform": float((1 / (steps + 1)).mean()),
        }

    def near_key(self) -> dict[str, float]:
        row = self._mean()[self.length - 1]
        return {str(shift): float(row[self.key + shift]) for shift in range(-NEAR, NEAR + 1)}

    def _mean(self, layer: int | None = None) -> Curve:
        weights: Curve = self.attention.mean(axis=0) if layer is None else self.attention[layer]
        return weights


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: _number(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _number(value: float | np.floating[Any]) -> float:
    return round(float(value), 5)


def _numbers(values: Sequence[float] | Curve) -> list[float]:
    return [_number(value) for value in values]
