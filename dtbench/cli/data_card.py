"""A dataset's card as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtbench.data.actions import action_scale, is_unit
from dtbench.data.dataset import TrajectoryDataset, statistics_card
from dtbench.errors import abridged, decimals_of
from dtbench.evaluation import Episodes
from dtbench.task import Task

RAW_REWARDS = "raw_rewards"  # the extra with the rewards before clipping
BAR = 40  # characters of a histogram's longest bar


def card_lines(task: Task, dataset: TrajectoryDataset) -> Iterator[str]:
    """Yield the lines of a dataset's card, with a histogram of its returns."""
    card, info = statistics_card(dataset), dataset.info
    yield f"task      {task.name}"
    yield f"source    {info.get('source', 'unknown')}"
    yield f"digest    {dataset.digest}"
    yield from _size_lines(dataset, card)
    yield from _policy_lines(info)
    if info.get("excerpt"):
        yield f"excerpt   {info['excerpt']}: NOT the dataset of published numbers"
    yield from _return_lines(task, dataset, card)
    yield "returns   episodes"
    yield from _histogram(card["return_histogram"]["counts"], card["return_histogram"]["edges"])
    for key, value in sorted(info.items()):
        if key not in ("excerpt", "policy_returns"):
            yield f"{key:<9} {abridged(value)}"


def card_json(task: Task, dataset: TrajectoryDataset) -> dict[str, Any]:
    """Return a dataset's card as plain JSON values; the score is None where it depends on more than the return."""
    scores = _scores(task, dataset, _raw_returns(dataset))
    score = None if scores is None else {"mean": float(scores.mean()), "highest": float(scores.max())}
    return {
        "task": task.name,
        "source": dataset.info.get("source", "unknown"),
        "digest": dataset.digest,
        "score_name": task.score_name,
        "score": score,
        **statistics_card(dataset),
        "info": dict(dataset.info),
    }


def _size_lines(dataset: TrajectoryDataset, card: Mapping[str, Any]) -> Iterator[str]:
    if dataset.frame_stack > 1 and dataset.observations.ndim == 3:
        height, width = dataset.observations.shape[1:]
        yield f"frames    {height} x {width} of {dataset.observations.dtype}, {dataset.frame_stack} an observation"
    yield f"episodes  {card['episodes']}, {card['cut_off_episodes']} of them truncated"
    lengths = f"mean {card['length_mean']:.1f}, std {card['length_std']:.1f}"
    yield f"steps     {card['steps']}: {card['length_min']} to {card['length_max']} an episode, {lengths}"
    unknown = card["unknown_transitions"]
    used = "all of them" if not unknown else f"all but {unknown}, truncated without a known successor"
    yield f"          TD learners use {used}"
    if constant := card["constant_observations"]:
        yield f"constant  observations {abridged(constant)}: learners subtract their value, no more"
    yield from _action_lines(dataset)
    if card["actions_on_bound"] is not None:
        yield f"actions   {card['actions_on_bound']:.2%} of their numbers lie on a bound"


def _action_lines(dataset: TrajectoryDataset) -> Iterator[str]:
    """Yield how learners see actions that are not in [-1, 1] already."""
    scale = action_scale(dataset.action_space, dataset.actions)
    if scale is None or is_unit(dataset.action_space):
        return
    whole = " of whole numbers" if np.dtype(scale.space.dtype).kind != "f" else ""
    bounds = "the Box" if scale.has_bounds else "the data where the Box has no bound"
    low, high = (abridged(np.round(bound, 4).tolist()) for bound in (scale.low, scale.high))
    yield f"actions   {low} to {high}{whole}, by {bounds}: [-1, 1] to learners, which act within it"


def _policy_lines(info: Mapping[str, Any]) -> Iterator[str]:
    if policies := info.get("policies"):
        yield f"policies  {len(policies)}"
    for row in info.get("policy_returns") or ():
        without = row.get("without_noise")
        imitation = "" if without is None else f"; without noise {without:.1f}, the limit of imitation"
        yield f"          {row['policy']}: mean return {row['with_noise']:.1f}{imitation}"


def _return_lines(task: Task, dataset: TrajectoryDataset, card: Mapping[str, Any]) -> Iterator[str]:
    yield f"return    mean {card['return_mean']:.4g}, std {card['return_std']:.4g}"
    yield f"          lowest {card['return_min']:.4g}, highest {card['return_max']:.4g}"
    raw = _raw_returns(dataset)
    if RAW_REWARDS in dataset.extras:
        yield f"          of rewards before clipping: mean {raw.mean():.4g}, highest {raw.max():.4g}"
    scores = _scores(task, dataset, raw)
    if scores is not None:
        mean, best = (f"{value:.{decimals_of(value)}f}" for value in (scores.mean(), scores.max()))
        yield f"score     mean {mean}, highest {best}: {task.score_name}"
    best = card["best_episode"]
    length, first = dataset.lengths[best], dataset.offsets[best]
    yield f"best      episode {best}: {length} steps from step {first}, return {card['return_max']:.4g}"


def _scores(task: Task, dataset: TrajectoryDataset, raw: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the scores of the data's episodes, None where they depend on more than the return."""
    indices = np.arange(dataset.num_episodes)
    try:
        return task.score(Episodes(np.full(len(indices), np.nan), indices, indices, raw, dataset.lengths))
    except (KeyError, IndexError):  # the graph's score needs the environment's info
        return None


def _raw_returns(dataset: TrajectoryDataset) -> NDArray[np.float64]:
    """Return the returns of the environment's rewards, before clipping."""
    rewards = np.asarray(dataset.extras.get(RAW_REWARDS, dataset.rewards), np.float64)
    return np.add.reduceat(rewards, dataset.offsets[:-1])


def _histogram(counts: Sequence[int], edges: Sequence[float]) -> Iterator[str]:
    most = max(counts)
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(BAR * count / most) or ("▏" if count else "")
        yield f"{low:>9.4g} to {high:>9.4g}  {bar} {count or ''}".rstrip()
