"""Trials of one cell that learn together: several seeds as one stack of parameters, each with its own record."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dtbench import registry
from dtbench.algorithm import Learner, Metrics, Pack, PackingAlgorithm
from dtbench.data.trajectories import TrajectoryDataset
from dtbench.errors import InvalidAlgorithm
from dtbench.spec import TrialSpec
from dtbench.trial import Stop, Trial, Undertaking, go_on


def can_pack(algorithm: str) -> bool:
    """Whether learners of the algorithm of this name can learn together."""
    return hasattr(registry.algorithm_class(algorithm), "pack")


def bundles(specs: Sequence[TrialSpec], size: int) -> list[list[TrialSpec]]:
    """The trials in parts of at most `size` that are to learn together: seeds of one cell whose algorithm can.

    Parts stand in the order of their first trials.
    """
    cells: dict[str, list[TrialSpec]] = defaultdict(list)
    for spec in specs:
        cells[spec.cell if size > 1 and can_pack(spec.algorithm) else spec.key].append(spec)
    parts = [cell[begin : begin + size] for cell in cells.values() for begin in range(0, len(cell), size)]
    place = {spec.key: number for number, spec in enumerate(specs)}
    return sorted(parts, key=lambda part: place[part[0].key])


def packed_learner(algorithm: Any, dataset: TrajectoryDataset, *, seeds: Sequence[int], device: torch.device) -> Pack:
    """Fresh learners of these seeds as one; raise InvalidAlgorithm where the algorithm cannot be packed."""
    if not isinstance(algorithm, PackingAlgorithm):
        raise InvalidAlgorithm(
            f"{type(algorithm).__name__} has no method pack: see dtbench.algorithm.PackingAlgorithm."
        )
    return algorithm.pack([algorithm.learner(dataset, seed=seed, device=device) for seed in seeds])  # type: ignore[attr-defined]


def run_packed(undertakings: Sequence[Undertaking], stop: Stop = go_on) -> None:
    """Run or continue trials of one cell, in one process, until each has a state.

    Those at the same step take their steps together; those that are behind catch up first. Every trial evaluates,
    logs, keeps its checkpoints and is recorded as `run_trial` does it, and one that fails leaves the others alone.
    What a step that is taken together raises, such as a full memory, fails all of them. Raises what `run_trial` does.
    """
    at_work = list(_opened(undertakings))
    while at_work:
        least = min(one.step for one in at_work)
        group = [one for one in at_work if one.step == least]
        until = min((one.step for one in at_work if one.step > least), default=group[0].trial.spec.budget)
        _go_on(group, until, stop)
        at_work = [one for one in at_work if not one.undertaking.state]


@dataclass(frozen=True, slots=True)
class _Member:
    undertaking: Undertaking
    trial: Trial

    @property
    def step(self) -> int:
        return self.trial.progress.step


def _opened(undertakings: Sequence[Undertaking]) -> Iterator[_Member]:
    for undertaking in undertakings:
        if not undertaking.state:
            trial = None
            with undertaking.guarded():
                trial = undertaking.open()
            if trial is not None:
                yield _Member(undertaking, trial)


def _go_on(group: Sequence[_Member], until: int, stop: Stop) -> None:
    """Steps of all until step `until`, or until one of them ends; those that spent their budget are recorded."""
    pack: Pack = _Alone(group[0].trial.learner)
    with _guarded(group):
        pack = _packed(group)
    for one in group:
        one.trial.together, one.trial.catch_up = len(group), pack.unpack
        with one.undertaking.guarded():
            one.trial.begin()
    while group[0].step < until and not any(one.undertaking.state for one in group):
        _take_a_step(group, pack, stop)
    pack.unpack()
    for one in group:
        if not one.undertaking.state and one.step == one.trial.spec.budget:
            with one.undertaking.guarded():
                one.trial.record()
            one.undertaking.settle(finished=True)


def _take_a_step(group: Sequence[_Member], pack: Pack, stop: Stop) -> None:
    metrics: Sequence[Metrics] = ()
    with _guarded(group):
        metrics = pack.update()
    stopping = bool(metrics) and stop()  # the same for all
    for one, own in zip(group, metrics, strict=bool(metrics)):
        going = True
        with one.undertaking.guarded():
            going = one.trial.took(own, lambda: stopping)
        if not going:
            one.undertaking.settle(finished=False)


@contextmanager
def _guarded(group: Sequence[_Member]) -> Iterator[None]:
    """Record what is raised within as the failure of all."""
    try:
        yield
    except Exception as error:
        for one in group:
            with one.undertaking.guarded():
                raise error


def _packed(group: Sequence[_Member]) -> Pack:
    learners = [one.trial.learner for one in group]
    if len(group) == 1:
        return _Alone(learners[0])
    spec = group[0].trial.spec
    algorithm: Any = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
    packed: Pack = algorithm.pack(learners)
    return packed


class _Alone:
    """A learner without company."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def update(self) -> Sequence[Metrics]:
        """See `Pack`."""
        return [self.learner.update()]

    def unpack(self) -> None:
        """See `Pack`: nothing was packed."""
