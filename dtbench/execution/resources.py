"""Resources of a trial, from the command line or measured on a GPU."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from dtbench.errors import InvalidValue
from dtbench.ledger.lock import processors
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.trial import open_trial

NAMES = ("cpu", "gpu", "extra_cpu")
AUTO = "auto"
PROBED_UPDATES = 5
CONTEXT_BYTES = 600 * 2**20  # of a process on a GPU besides its tensors, for CUDA's context and libraries
MOST_ON_ONE_GPU = 32

PeakBytes = Callable[[TrialSpec], tuple[int, int]]  # (bytes that a trial needs of a GPU, bytes that the GPU has)


def sized(specs: Sequence[TrialSpec], text: str | None, peak: PeakBytes | None = None) -> list[TrialSpec]:
    """Return the trials with the resources of a text such as "cpu=2,gpu=0.25".

    gpu=auto is the measured share of a GPU of the largest; `peak` measures one trial of each configuration. Raises
    InvalidValue for other texts, and for gpu=auto without a GPU.
    """
    given = _parsed(text)
    fixed = {name: float(value) for name, value in given.items() if value != AUTO}
    specs = [dataclasses.replace(spec, resources={**spec.resources, **fixed}) for spec in specs]
    if given.get("gpu") != AUTO:
        return specs
    if peak is None and not torch.cuda.is_available():
        raise InvalidValue(
            "--resources gpu=auto measures on a GPU, and this machine has none. Use gpu=0, or gpu=0.25."
        )
    cells = {spec.cell: spec for spec in specs}.values()
    fit = min((trials_on_one_gpu(*(peak or peak_bytes)(spec)) for spec in cells), default=1)
    return [dataclasses.replace(spec, resources={**spec.resources, "gpu": 1 / fit}) for spec in specs]


def parallel_trials(resources: Mapping[str, float]) -> int:
    """Return how many such trials Ray can run at the same time on this machine."""
    fit = processors() // (max(1.0, resources.get("cpu", 1.0)) + resources.get("extra_cpu", 0.0))
    if resources.get("gpu", 0.0) > 0:
        fit = min(fit, torch.cuda.device_count() / resources["gpu"])
    return int(fit)


def check_room(specs: Iterable[TrialSpec]) -> None:
    """Raise InvalidValue for a trial that needs more than this machine has: Ray would wait forever."""
    for spec in specs:
        if parallel_trials(spec.resources) == 0:
            raise InvalidValue(
                f"{spec.contender} on {spec.task} needs {dict(spec.resources)}, which this machine lacks. Use "
                "resources.gpu=0 (and resources.cpu=N), --preset cpu, or --address of a cluster that has it."
            )


def trials_on_one_gpu(taken: int, available: int) -> int:
    """Return how many trials of `taken` bytes each fit on a GPU, with a tenth of it free; at least one."""
    return max(1, min(MOST_ON_ONE_GPU, math.floor(0.9 * available / (taken + CONTEXT_BYTES))))


def peak_bytes(spec: TrialSpec) -> tuple[int, int]:
    """Measure the GPU memory of a trial in a few gradient steps; return (bytes of the trial, bytes of the GPU)."""
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    learner = open_trial(spec).learner
    for _ in range(min(spec.train_steps, PROBED_UPDATES)):
        learner.update()
    torch.cuda.synchronize(device)
    taken = torch.cuda.max_memory_reserved(device)
    return taken, torch.cuda.get_device_properties(device).total_memory


def _parsed(text: str | None) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in (text or "").split(",") if text is not None else ():
        name, _, value = part.strip().partition("=")
        number = re.fullmatch(r"\d+(\.\d+)?|\.\d+", value)
        if name not in NAMES or not (number or (name, value) == ("gpu", AUTO)) or name in given:
            raise InvalidValue(f"--resources {text!r}: write cpu=2,gpu=0.25 (or gpu=auto). Known: {', '.join(NAMES)}.")
        given[name] = value
    return given
