"""Offline data: datasets, samplers and random streams."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtbench.data.actions import require_unit as require_unit
    from dtbench.data.actions import unit_actions as unit_actions
    from dtbench.data.cache import data_root as data_root
    from dtbench.data.dataset import TrajectoryDataset as TrajectoryDataset
    from dtbench.data.dataset import make_dataset as make_dataset
    from dtbench.data.dataset import observation_moments as observation_moments
    from dtbench.data.randomness import TorchStream as TorchStream
    from dtbench.data.randomness import generator as generator
    from dtbench.data.sampling import Transitions as Transitions
    from dtbench.data.sampling import TransitionSampler as TransitionSampler
    from dtbench.data.sampling import Windows as Windows
    from dtbench.data.sampling import WindowSampler as WindowSampler
    from dtbench.data.sampling import balanced_weights as balanced_weights

_MODULES = {  # torch and pyarrow are imported with the first name that needs them
    "actions": ("require_unit", "unit_actions"),
    "cache": ("data_root",),
    "dataset": ("TrajectoryDataset", "make_dataset", "observation_moments"),
    "randomness": ("TorchStream", "generator"),
    "sampling": ("TransitionSampler", "Transitions", "WindowSampler", "Windows", "balanced_weights"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"dtbench.data.{module}"), name)
    raise AttributeError(f"module 'dtbench.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
