"""dtbench: does return-conditioned sequence modelling match TD learning for offline RL?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dtbench.algorithm import Algorithm, CachingLearner, DiscreteLearner, History, Learner, Metrics, Rollout
    from dtbench.cluster import ray_started
    from dtbench.data.images import ImageScale, image_scale, is_image
    from dtbench.data.sampling import Transitions, TransitionSampler, Windows, WindowSampler
    from dtbench.data.store import data_root
    from dtbench.data.trajectories import TrajectoryDataset, make_dataset, moments
    from dtbench.decision_transformer.model import CausalTransformer
    from dtbench.decision_transformer.rollout import GamesHeld, TransformerCache, next_beginning
    from dtbench.errors import DtbenchError, IncompatibleTask, InvalidValue
    from dtbench.evaluation import Episodes, Evaluator
    from dtbench.layers import Dropout, Linear, Perceptron, feed_forward, is_faster
    from dtbench.randomness import TorchStream, generator
    from dtbench.task import Task, normalize

# Looked up at first use: `dtbench --help` must not wait for torch.
_HOMES = {
    "Algorithm": "algorithm",
    "CachingLearner": "algorithm",
    "CausalTransformer": "decision_transformer.model",
    "DiscreteLearner": "algorithm",
    "Dropout": "layers",
    "DtbenchError": "errors",
    "Episodes": "evaluation",
    "Evaluator": "evaluation",
    "GamesHeld": "decision_transformer.rollout",
    "History": "algorithm",
    "ImageScale": "data.images",
    "IncompatibleTask": "errors",
    "InvalidValue": "errors",
    "Learner": "algorithm",
    "Linear": "layers",
    "Metrics": "algorithm",
    "Perceptron": "layers",
    "Rollout": "algorithm",
    "Task": "task",
    "TorchStream": "randomness",
    "TrajectoryDataset": "data.trajectories",
    "TransformerCache": "decision_transformer.rollout",
    "TransitionSampler": "data.sampling",
    "Transitions": "data.sampling",
    "WindowSampler": "data.sampling",
    "Windows": "data.sampling",
    "data_root": "data.store",
    "feed_forward": "layers",
    "generator": "randomness",
    "image_scale": "data.images",
    "is_faster": "layers",
    "is_image": "data.images",
    "make_dataset": "data.trajectories",
    "moments": "data.trajectories",
    "next_beginning": "decision_transformer.rollout",
    "normalize": "task",
    "ray_started": "cluster",
}

__all__ = [
    "Algorithm",
    "CachingLearner",
    "CausalTransformer",
    "DiscreteLearner",
    "Dropout",
    "DtbenchError",
    "Episodes",
    "Evaluator",
    "GamesHeld",
    "History",
    "ImageScale",
    "IncompatibleTask",
    "InvalidValue",
    "Learner",
    "Linear",
    "Metrics",
    "Perceptron",
    "Rollout",
    "Task",
    "TorchStream",
    "TrajectoryDataset",
    "TransformerCache",
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
    "moments",
    "next_beginning",
    "normalize",
    "ray_started",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dtbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dtbench' has no attribute {name!r}")
