"""dtbench: does return-conditioned sequence modelling match TD learning for offline RL?"""

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names. They are imported at first use: `dtbench --help` must not wait for torch.
if TYPE_CHECKING:
    from dtbench import data as data
    from dtbench import envs as envs
    from dtbench import nn as nn
    from dtbench import testing as testing
    from dtbench.algorithm import Algorithm as Algorithm
    from dtbench.algorithm import History as History
    from dtbench.algorithm import Learner as Learner
    from dtbench.algorithm import Metrics as Metrics
    from dtbench.algorithm import Rollout as Rollout
    from dtbench.analysis.figures.plot import plot as plot
    from dtbench.analysis.results_directory import load_scores as load_scores
    from dtbench.data.dataset import TrajectoryDataset as TrajectoryDataset
    from dtbench.data.dataset import make_dataset as make_dataset
    from dtbench.data.sampling import TransitionSampler as TransitionSampler
    from dtbench.data.sampling import WindowSampler as WindowSampler
    from dtbench.decision_transformer.agent import DecisionTransformer as DecisionTransformer
    from dtbench.errors import DtbenchError as DtbenchError
    from dtbench.errors import IncompatibleTask as IncompatibleTask
    from dtbench.errors import InvalidValue as InvalidValue
    from dtbench.evaluation import Episodes as Episodes
    from dtbench.evaluation import Evaluator as Evaluator
    from dtbench.execution.api import evaluate as evaluate
    from dtbench.execution.api import run_suite as run_suite
    from dtbench.execution.policy import Policy as Policy
    from dtbench.execution.policy import load_policy as load_policy
    from dtbench.execution.training import train as train
    from dtbench.registry import make_algorithm as make_algorithm
    from dtbench.registry import make_task as make_task
    from dtbench.suite.planning import load_suite as load_suite
    from dtbench.suite.schema import Suite as Suite
    from dtbench.task import DataSource as DataSource
    from dtbench.task import Task as Task


def _public_names() -> dict[str, str]:
    """Return the module of each public name, from the imports above."""
    block = next(
        node for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body if isinstance(node, ast.If)
    )
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


_MODULE_OF = _public_names()
__all__ = sorted(_MODULE_OF)

if not TYPE_CHECKING:  # so that a type checker refuses other names

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'dtbench' has no attribute {name!r}")
        if _MODULE_OF[name] == "dtbench":
            return import_module(f"dtbench.{name}")
        return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
