"""The contract that any algorithm must pass, for third parties too: `check_algorithm(MyAlgorithm())`."""

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
from dtbench.data.dataset import TrajectoryDataset, make_dataset
from dtbench.data.randomness import generator
from dtbench.errors import IncompatibleTask, InvalidAlgorithm
from dtbench.trial import check_learner

STEPS = 3


def toy_dataset(*, discrete_actions: bool, discrete_observations: bool = False, seed: int = 0) -> TrajectoryDataset:
    """Twelve short episodes of random numbers, some cut off, some ended: enough to exercise a learner."""
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
    """Raise InvalidAlgorithm, saying which clause, unless the algorithm keeps the contract.

    The clauses: it is a frozen dataclass; its learner has all of `Learner`; metrics are finite; actions have the
    space's shape and lie in it, on CPU, whatever the batch; its rollout chooses from step to step what `act` does;
    acting changes nothing; equal seeds learn equally, other seeds differently (if they learn at all); a state
    survives torch.save with weights_only and continues exactly. Without `dataset` toy data with discrete and
    continuous actions are tried; it must accept one of them; the other it may refuse with IncompatibleTask. A
    class, or a name such as "my_file:MyAlgorithm", is tried with its defaults.
    """
    if isinstance(algorithm, str):
        algorithm = registry.make_algorithm(algorithm, {})
    if isinstance(algorithm, type):
        algorithm = algorithm()
    _require(dataclasses.is_dataclass(algorithm), f"{type(algorithm).__name__} is no dataclass.")
    frozen = type(algorithm).__dataclass_params__.frozen  # type: ignore[attr-defined]
    _require(frozen, f"{type(algorithm).__name__} is not frozen.")
    if dataset is not None:
        _check_on(algorithm, dataset)
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
    """Histories of `batch` running episodes that are `steps` old, padded to `context` as the evaluator does."""
    rng = generator(batch, context, steps)
    filled = min(steps, context)
    mask = torch.zeros(batch, context, dtype=torch.bool)
    mask[:, context - filled :] = True
    rows = rng.integers(dataset.num_steps, size=(batch, context))
    observations = torch.from_numpy(dataset.observations_at(rows))
    actions = torch.from_numpy(np.asarray(dataset.actions)[rows]).float()
    actions[:, -1] = 0
    timesteps = (torch.arange(context) - (context - steps)).clamp(min=0).expand(batch, context).contiguous()
    return History(
        observations=_masked(observations, mask),
        actions=_masked(actions, mask),
        returns_to_go=_masked(torch.ones(batch, context), mask),
        timesteps=_masked(timesteps, mask),
        mask=mask,
    )


def toy_games(dataset: TrajectoryDataset, *, batch: int, context: int, steps: int) -> Iterator[History]:
    """What the evaluator shows, step by step, of `batch` games that hold random steps of the data."""
    rng = generator(batch, context, steps)
    rows = rng.integers(dataset.num_steps, size=(batch, steps))
    observations = torch.from_numpy(dataset.observations_at(rows))
    actions = torch.from_numpy(np.asarray(dataset.actions)[rows]).float()
    returns = torch.from_numpy(rng.normal(1, 1, (batch, steps)).astype(np.float32))
    timesteps = torch.arange(steps).expand(batch, -1)
    for step in range(steps):
        seen = slice(max(0, step + 1 - context), step + 1)
        missing = max(0, context - step - 1)
        shown = actions[:, seen].clone()
        shown[:, -1] = 0
        yield History(
            observations=_padded(observations[:, seen], missing),
            actions=_padded(shown, missing),
            returns_to_go=_padded(returns[:, seen], missing),
            timesteps=_padded(timesteps[:, seen], missing),
            mask=(torch.arange(context) >= missing).expand(batch, -1),
        )


def _check_on(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    learner = _learner(algorithm, dataset, seed=0)
    check_learner(learner, type(algorithm).__name__)
    _require(isinstance(learner.return_conditioned, bool), "return_conditioned is no bool.")
    _check_metrics(learner)
    _check_actions(learner, dataset)
    _check_rollout(learner, dataset)
    _check_seeds(algorithm, dataset)
    _check_acting_changes_nothing(algorithm, dataset)
    _check_resume(algorithm, dataset)


def _check_metrics(learner: Learner) -> None:
    for name, value in learner.update().items():
        number = torch.as_tensor(value)
        _require(number.numel() == 1, f"metric {name} is no scalar.")
        _require(bool(torch.isfinite(number)), f"metric {name} is {float(number)} after one step.")


def _check_actions(learner: Learner, dataset: TrajectoryDataset) -> None:
    space = dataset.action_space
    for batch, steps in ((1, 1), (5, 3), (2, 40)):
        actions = learner.act(toy_history(dataset, batch=batch, context=learner.context, steps=steps))
        _require(isinstance(actions, Tensor), f"act gives {type(actions).__name__}, not a tensor.")
        shape = (batch, *(space.shape or ()))
        _require(tuple(actions.shape) == shape, f"act gives shape {tuple(actions.shape)}, not {shape}.")
        _require(not actions.requires_grad, "act gives actions that require gradients.")
        for action in actions.cpu().numpy():
            _require(space.contains(space.dtype.type(action)), f"act gives {action}, which is not in {space}.")  # type: ignore[union-attr]
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
    for step, history in enumerate(toy_games(dataset, batch=5, context=context, steps=context + 4)):
        rows = torch.arange(5) if step < 2 else torch.tensor([0, 2, 3])  # the others have ended
        ours, theirs = getattr(rollout, kind)(history, rows), getattr(learner, kind)(history.of(rows))
        agree = ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        _require(agree, f"at step {step} of a game its rollout's {kind} is not what it gives for the history alone.")


def _check_acting_changes_nothing(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    silent, acting = (_learner(algorithm, dataset, seed=3) for _ in range(2))
    for _ in range(STEPS):
        acting.act(toy_history(dataset, batch=2, context=acting.context, steps=2))
        _require(_equal(silent.update(), acting.update()), "acting between updates changes what is learnt.")


def _check_seeds(algorithm: Algorithm, dataset: TrajectoryDataset) -> None:
    torch.manual_seed(1)
    first = [_learner(algorithm, dataset, seed=1).update() for _ in range(1)]
    torch.manual_seed(2)
    again, other = (_learner(algorithm, dataset, seed=seed) for seed in (1, 2))
    _require(_equal(first[0], again.update()), "equal seeds learn differently: a global random stream is used.")
    unlike = not _equal(first[0], other.update())
    _require(unlike or not first[0], "different seeds learn equally: the seed is ignored.")


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
        _require(_equal(whole.update(), resumed.update()), "a resumed learner goes on differently.")
        _require(torch.equal(whole.act(history), resumed.act(history)), "a resumed learner acts differently.")


def _learner(algorithm: Algorithm, dataset: TrajectoryDataset, *, seed: int) -> Learner:
    return algorithm.learner(dataset, seed=seed, device=torch.device("cpu"))


def _equal(ours: Any, theirs: Any) -> bool:
    return set(ours) == set(theirs) and all(float(ours[name]) == float(theirs[name]) for name in ours)


def _padded(values: Tensor, missing: int) -> Tensor:
    return torch.cat([values.new_zeros(len(values), missing, *values.shape[2:]), values], dim=1)


def _masked(tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor * mask.view(*mask.shape, *[1] * (tensor.dim() - 2)).to(tensor.dtype)


def _require(condition: bool, clause: str) -> None:
    if not condition:
        raise InvalidAlgorithm(f"check_algorithm: {clause}")
