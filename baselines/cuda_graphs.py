"""Updates as CUDA graphs: to launch the kernels of small networks takes Python longer than a GPU takes to run them."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from dtbench import Metrics

WARM_UP = 3  # real updates on a stream of their own before the recording, as PyTorch's documentation asks for
Batch = TypeVar("Batch")
Update = Callable[[], Metrics]
Recorder = Callable[[Update], tuple[Callable[[], object], Metrics]]


def record_cuda_graph(update: Update) -> tuple[Callable[[], object], Metrics]:
    """Record the kernels of an update, which does not run; return what runs them, and the metrics that they fill."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        metrics = update()
    return graph.replay, metrics


def on_side_stream(update: Update) -> Metrics:
    """Run an update on another stream than the present one, each of which waits for the other."""
    present, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(present)
    with torch.cuda.stream(side):
        metrics = update()
    present.wait_stream(side)
    return metrics


class GraphedUpdate(Generic[Batch]):
    """An update of a batch, which on CUDA is recorded once as a graph and then replayed.

    The update must not wait for the device and must take the same kernels on the same shapes each time; where it has
    several courses, such as with and without a step of the actor, each is recorded by itself. What changes from step
    to step without being a tensor, such as a learning rate, belongs outside of it. Metrics are valid until the next
    update. Elsewhere than on CUDA the update runs as it is.
    """

    def __init__(
        self,
        update: Callable[..., Metrics],
        device: torch.device,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        """`update` takes a batch, a dataclass of tensors, and then what tells its courses apart."""
        on_cuda = device.type == "cuda"
        self.update = update
        self.recorder = recorder or (record_cuda_graph if on_cuda else None)
        self.warm_up: Callable[[Update], Metrics] = on_side_stream if on_cuda else lambda run: run()
        self._courses: dict[Hashable, _Course] = {}

    def __call__(self, batch: Batch, *course: Hashable) -> Metrics:
        """Take the step."""
        if self.recorder is None:
            return self.update(batch, *course)
        known = self._courses.get(course)
        if known is None:
            known = self._courses[course] = _Course(copied_batch(batch))
        copy_batch(batch, to=known.batch)
        if known.runs < WARM_UP:
            known.runs += 1
            return self.warm_up(lambda: self.update(known.batch, *course))
        if known.replay is None:
            known.replay, known.metrics = self.recorder(lambda: self.update(known.batch, *course))
        known.replay()
        return known.metrics


@dataclass
class _Course:
    """A course of an update: the batch that its kernels read, and its recording."""

    batch: Any
    runs: int = 0
    replay: Callable[[], object] | None = None
    metrics: Metrics = None  # type: ignore[assignment]  # before the recording


def copied_batch(batch: Batch) -> Batch:
    """Copy the tensors of a batch to memory that stays where it is."""
    tensors = {name: value.clone() for name, value in _tensors(batch).items()}
    return replace(batch, **tensors)  # type: ignore[type-var]


def copy_batch(batch: Any, *, to: Any) -> None:
    """Copy the tensors of a batch into those of another, of equal shapes."""
    source, target = _tensors(batch), _tensors(to)
    torch._foreach_copy_([target[name] for name in source], list(source.values()))


def _tensors(batch: Any) -> dict[str, Tensor]:
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
