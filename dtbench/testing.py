"""Contract tests for algorithms, also those of third parties: `check_algorithm(MyAlgorithm())`."""

import dataclasses
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dtbench import registry
from dtbench.algorithm import Algorithm, CachingLearner, DiscreteLearner, History, Learner
from dtbench.data.actions import unit_actions
from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.errors import IncompatibleTask, InvalidAlgorithm
from dtbench.trial import check_learner

STEPS = 3


def toy_dataset(*, discrete_actions: bool, discrete_observations: bool = False, seed: int = 0) -> TrajectoryDataset:
    """Return twelve short episodes of random numbers, some truncated, some terminated."""
    rng = generator(seed)
    lengths = rng.integers(3, 9, size=12)
    steps = int(lengths.sum())
    terminals = np.zeros(steps, bool)
    terminals[(np.cumsum(lengths) - 1)[::2]] = True
    actions = rng.integers(3, size=steps) if discrete_actions else rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
    observations = rng.integers(5, size=steps) if discrete_observations else rng.normal(size=(steps, 4))
    return make_dataset(
        observations=observations if discrete_observations else observations.astype(np.float32),
        actions=actions,
        rewards=rng.normal(size=steps).astype(np.float32),
        terminals=terminals,
        lengths=lengths,
        observation_space=gym.spaces.Discrete(5) if discrete_observations else gym.spaces.Box(-np.inf, np.inf, (4,)),
        action_space=gym.spaces.Discrete(3) if discrete_actions else gym.spaces.Box(-1, 1, (2,)),
        info={"source": "toy"},
    )


def check_algorithm(algorithm: Algorithm | type[Algorithm] | str, dataset: TrajectoryDataset | None = None) -> None:
    """Raise InvalidAlgorithm, naming the check, unless the algorithm passes all checks of the contract.

    It is a frozen dataclass; its learner has all of `Learner`; metrics are finite; actions have the space's shape and
    lie in it, on the CPU, for any batch; its rollout equals `act`; acting has no side effects; equal seeds train
    equally, other seeds differently (if they train at all); a state survives torch.save with weights_only and
    continues exactly. Without `dataset` it must accept toy data with discrete or continuous actions, and may refuse
    the other with IncompatibleTask. Actions of a Box reach it in [-1, 1], those of `dataset` too. A class, or a name
    such as "my_file:MyAlgorithm", is checked with its defaults.
    """
    if isinstance(algorithm, str):
        algorithm = registry.make_algorithm(algorithm, {})
    if isinstance(algorithm, type):
        algorithm = algorithm()
    _require(dataclasses.is_dataclass(algorithm), f"{type(algorithm).__name__} is not a dataclass.")
    frozen = type(algorithm).__dataclass_params__.frozen  # type: ignore[attr-defined]
    _require(frozen, f"{type(algorithm).__name__} is not frozen.")
    if dataset is not None:
        _check_on(algorithm, unit_actions(dataset))
        return
    accepted = 0
    for discrete in (True, False):
        toy = toy_dataset(discrete_actions=discrete)
        try:
            _learner(algorithm, toy, seed=0)
        except IncompatibleTask:
            continue
        accepted += 1
        _check_on(algorithm, toy)
    _require(accepted > 0, "it refuses both discrete and continuous actions.")


def toy_history(dataset: TrajectoryDataset, *, batch: int, context: int, steps: int) -> History:
    """Return the history of `batch` running episodes after `steps` steps, padded to `context` like the evaluator's."""
    *_, history = toy_episodes(dataset, batch=batch, context=context, steps=steps)
    return history


def toy_episodes(dataset: TrajectoryDataset, *, batch: int, context: int, steps: int) -> Iterator[History]:
    """Yield the evaluator's history after each step of `batch` episodes of random steps of the data."""
    rng = generator(batch, context, steps)
    rows = rng.integers(dataset.num_steps, size=(batch, steps))
    observations = torch.from_numpy(dataset.observations_at(rows))
    actions = torch.from_numpy(np.asarray(dataset.actions)[rows]).float()
    returns = torch.from_numpy(rng.normal(1, 1, (batch, steps)).astype(np.float32))
    timesteps = torch.arange(steps).expand(batch, -1)
    for step in range(steps):
        window = slice(max(0, step + 1 - context), step + 1)
        missing = max(0, context - step - 1)
        taken = actions[:, window].clone()
        taken[:, -1] = 0
        yield History(
            observations=_padded(observations[:, window], missing),
            actions=_padded(taken, missing),
            returns_to_go=_padded(returns[:, window], missing),
            timesteps=_padded(timesteps[:, window], missing),
            mask=(torch.arange(context) >= missing).expand(batch, -1),
        )


def _check_on(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    learner = _learner(algorithm, dataset, seed=0)
    check_learner(learner, type(algorithm).__name__)
    _require(isinstance(learner.return_conditioned, bool), "return_conditioned is not a bool.")
    _check_metrics(learner)
    _check_actions(learner, dataset)
    _check_rollout(learner, dataset)
    _check_seeds(algorithm, dataset)
    _check_acting_changes_nothing(algorithm, dataset)
    _check_resume(algorithm, dataset)


def _check_metrics(learner: Learner) -> None:
    for name, value in learner.update().items():
        number = value if isinstance(value, Tensor) else torch.as_tensor(float(value))
        _require(number.numel() == 1, f"metric {name} is not a scalar.")
        _require(bool(torch.isfinite(number)), f"metric {name} is {float(number)} after one step.")


def _check_actions(learner: Learner, dataset: TrajectoryDataset) -> None:
    space = dataset.action_space
    for batch, steps in ((1, 1), (5, 3), (2, 40)):
        actions = learner.act(toy_history(dataset, batch=batch, context=learner.context, steps=steps))
        _require(isinstance(actions, Tensor), f"act returns {type(actions).__name__}, not a tensor.")
        shape = (batch, *(space.shape or ()))
        _require(tuple(actions.shape) == shape, f"act returns shape {tuple(actions.shape)}, not {shape}.")
        _require(not actions.requires_grad, "act returns actions that require gradients.")
        for action in actions.cpu().numpy():
            _require(space.contains(space.dtype.type(action)), f"act returns {action}, which is not in {space}.")  # type: ignore[union-attr]
        if isinstance(learner, DiscreteLearner) and isinstance(space, gym.spaces.Discrete):
            logits = learner.action_logits(toy_history(dataset, batch=batch, context=learner.context, steps=steps))
            _require(tuple(logits.shape) == (batch, int(space.n)), f"action_logits has shape {tuple(logits.shape)}.")


def _check_rollout(learner: Learner, dataset: TrajectoryDataset) -> None:
    rollout = learner.rollout() if isinstance(learner, CachingLearner) else None
    if rollout is None:
        return
    kinds = ["act", *(["action_logits"] if isinstance(learner, DiscreteLearner) else [])]
    kind = kinds[-1] if isinstance(dataset.action_space, gym.spaces.Discrete) else "act"
    context = learner.context
    for step, history in enumerate(toy_episodes(dataset, batch=5, context=context, steps=context + 4)):
        rows = torch.arange(5) if step < 2 else torch.tensor([0, 2, 3])  # the others have ended
        cached, plain = getattr(rollout, kind)(history, rows), getattr(learner, kind)(history.of(rows))
        agree = cached.shape == plain.shape and torch.allclose(cached, plain, rtol=1e-3, atol=1e-4)
        _require(agree, f"at step {step} of an episode its rollout's {kind} differs from its own.")


def _check_acting_changes_nothing(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    silent, acting = (_learner(algorithm, dataset, seed=3) for _ in range(2))
    for _ in range(STEPS):
        acting.act(toy_history(dataset, batch=2, context=acting.context, steps=2))
        _require(_equal(silent.update(), acting.update()), "acting between updates changes the training.")


def _check_seeds(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    torch.manual_seed(1)
    first = _learner(algorithm, dataset, seed=1).update()
    torch.manual_seed(2)
    again, other = (_learner(algorithm, dataset, seed=seed) for seed in (1, 2))
    _require(_equal(first, again.update()), "equal seeds train differently: a global random stream is used.")
    differ = not _equal(first, other.update())
    _require(differ or not first, "different seeds train equally: the seed is ignored.")


def _check_resume(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    whole, resumed = (_learner(algorithm, dataset, seed=4) for _ in range(2))
    for _ in range(STEPS):
        whole.update()
    buffer = BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    try:
        state: dict[str, Any] = torch.load(buffer, weights_only=True)
    except Exception as error:
        raise InvalidAlgorithm(f"state_dict holds more than tensors and plain values: {error}") from error
    if not getattr(whole, "resumable", True):
        return
    resumed.load_state_dict(state)
    history = toy_history(dataset, batch=4, context=whole.context, steps=2)
    for _ in range(STEPS):
        _require(_equal(whole.update(), resumed.update()), "a resumed learner trains differently.")
        _require(torch.equal(whole.act(history), resumed.act(history)), "a resumed learner acts differently.")


def _learner(algorithm: Algorithm, dataset: TrajectoryDataset, *, seed: int) -> Learner:
    return algorithm.learner(dataset, seed=seed, device=torch.device("cpu"))


def _equal(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(float(a[name]) == float(b[name]) for name in a)


def _padded(values: Tensor, missing: int) -> Tensor:
    return torch.cat([values.new_zeros(len(values), missing, *values.shape[2:]), values], dim=1)


def _require(condition: bool, failure: str) -> None:
    if not condition:
        raise InvalidAlgorithm(f"check_algorithm: {failure}")
