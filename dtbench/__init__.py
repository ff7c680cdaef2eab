"""dtbench: does return-conditioned sequence modelling match TD learning for offline RL?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dtbench.algorithm import Algorithm, CachingLearner, DiscreteLearner, History, Learner, Metrics, Rollout
    from dtbench.data.cache import data_root
    from dtbench.data.dataset import TrajectoryDataset, make_dataset, mean_and_std
    from dtbench.data.randomness import TorchStream, generator
    from dtbench.data.sampling import Transitions, TransitionSampler, Windows, WindowSampler
    from dtbench.decision_transformer.kv_cache import ActiveEpisodes, KeyValueCache
    from dtbench.decision_transformer.model import CausalTransformer
    from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue
    from dtbench.evaluation import Episodes, Evaluator
    from dtbench.execution.cluster import ray_started
    from dtbench.nn import MLP, Dropout, ImageScale, Linear, feed_forward, image_scale, is_faster, is_image
    from dtbench.task import Task, normalize

# Looked up at first use: `dtbench --help` must not wait for torch.
_HOMES = {
    "Algorithm": "algorithm",
    "CachingLearner": "algorithm",
    "CausalTransformer": "decision_transformer.model",
    "DiscreteLearner": "algorithm",
    "Dropout": "nn",
    "DtbenchError": "errors",
    "Episodes": "evaluation",
    "Evaluator": "evaluation",
    "ActiveEpisodes": "decision_transformer.kv_cache",
    "History": "algorithm",
    "ImageScale": "nn",
    "IncompatibleTask": "errors",
    "InvalidValue": "errors",
    "Learner": "algorithm",
    "Linear": "nn",
    "Metrics": "algorithm",
    "MLP": "nn",
    "Rollout": "algorithm",
    "Task": "task",
    "TorchStream": "data.randomness",
    "TrajectoryDataset": "data.dataset",
    "KeyValueCache": "decision_transformer.kv_cache",
    "TransitionSampler": "data.sampling",
    "Transitions": "data.sampling",
    "WindowSampler": "data.sampling",
    "Windows": "data.sampling",
    "data_root": "data.cache",
    "feed_forward": "nn",
    "generator": "data.randomness",
    "image_scale": "nn",
    "is_faster": "nn",
    "is_image": "nn",
    "make_dataset": "data.dataset",
    "mean_and_std": "data.dataset",
    "normalize": "task",
    "ray_started": "execution.cluster",
}

__all__ = [
    "MLP",
    "ActiveEpisodes",
    "Algorithm",
    "CachingLearner",
    "CausalTransformer",
    "DiscreteLearner",
    "Dropout",
    "DtbenchError",
    "Episodes",
    "Evaluator",
    "History",
    "ImageScale",
    "IncompatibleTask",
    "InvalidValue",
    "KeyValueCache",
    "Learner",
    "Linear",
    "Metrics",
    "Rollout",
    "Task",
    "TorchStream",
    "TrajectoryDataset",
    "TransitionSampler",
    "Transitions",
    "WindowSampler",
    "Windows",
    "data_root",
    "feed_forward",
    "generator",
    "image_scale",
    "is_faster",
    "is_image",
    "make_dataset",
    "mean_and_std",
    "normalize",
    "ray_started",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dtbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dtbench' has no attribute {name!r}")
