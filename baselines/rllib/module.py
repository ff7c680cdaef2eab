"""RLlib's offline algorithms, configured and trained. Imported only in the process that runs RLlib."""

import logging
import math
import warnings
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.data import DataContext, FileShuffleConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from torch import Tensor

MODEL = ("fcnet_hiddens", "fcnet_activation")  # hyperparameters that belong to RLlib's model_config
READERS = 1  # processes that prepare batches
READER_CORES = 0.5  # that reading files waits for


class Spaces(gym.Env[Any, Any]):
    """The spaces of an environment that is never stepped: RLlib's CQL does not start without one."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Take the spaces from RLlib's `env_config`."""
        self.observation_space, self.action_space = config["observation_space"], config["action_space"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return zeros."""
        return np.zeros(self.observation_space.shape or (), np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """End the episode."""
        return np.zeros(self.observation_space.shape or (), np.float32), 0.0, True, False, {}


class Trainer:
    """An algorithm of RLlib that learns from exported data, an iteration of `steps_per_iteration` steps at a time."""

    def __init__(
        self,
        *,
        algorithm: str,
        hyperparameters: dict[str, Any],
        folder: str,
        features: int,
        discrete: int,
        continuous: int,
        steps_per_iteration: int,
        seed: int,
        threads: int,
    ) -> None:
        """Build the algorithm for `discrete` actions, or for actions of `continuous` numbers; the other is 0."""
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # RLlib's own code draws from it
        logging.getLogger("ray").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        _keep_order()
        observations = gym.spaces.Box(-math.inf, math.inf, (features,), np.float32)
        actions = gym.spaces.Discrete(discrete) if discrete else gym.spaces.Box(-1, 1, (continuous,), np.float32)
        model = {name: value for name, value in hyperparameters.items() if name in MODEL}
        training = {name: value for name, value in hyperparameters.items() if name not in MODEL}
        config = (
            _config(algorithm)
            .environment(
                env=Spaces if algorithm == "cql" else None,
                env_config={"observation_space": observations, "action_space": actions},
                observation_space=observations,
                action_space=actions,
            )
            .training(**training)
            .rl_module(model_config=DefaultModelConfig(**_plain(model), vf_share_layers=False))
            .offline_data(
                input_=[folder],
                # Each seed reads the files in another order.
                input_read_method_kwargs={
                    "shuffle": FileShuffleConfig(seed=seed),
                    "ray_remote_args": {"num_cpus": READER_CORES},
                },
                map_batches_kwargs={"concurrency": READERS, "num_cpus": 1},
                dataset_num_iters_per_learner=steps_per_iteration,
            )
            .learners(num_learners=0, num_gpus_per_learner=0)
            .env_runners(num_env_runners=0)
            # CQL's defaults would go on until a second has passed and a hundred transitions were seen.
            .reporting(
                min_time_s_per_iteration=None,
                min_train_timesteps_per_iteration=0,
                min_sample_timesteps_per_iteration=0,
            )
            .debugging(seed=seed, log_level="ERROR")
        )
        self.algorithm = config.build_algo()
        self.rllib_learner = _only(self.algorithm.learner_group.foreach_learner(lambda learner: learner))
        self.module = self.rllib_learner.module[DEFAULT_MODULE_ID].unwrapped()

    def train(self) -> dict[str, Any]:
        """Train one iteration; return the losses of its last step and the number of gradient steps so far."""
        result = self.algorithm.train()["learners"][DEFAULT_MODULE_ID]
        losses = {name: float(result[name]) for name in sorted(result) if name.endswith("loss")}
        return {"metrics": losses, "steps": self.steps()}

    def steps(self) -> int:
        """Return the number of gradient steps, as the optimizer counts them."""
        (_, optimizer), *_ = self.rllib_learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
        return max((int(state["step"]) for state in optimizer.state.values()), default=0)

    @torch.no_grad()
    def act(self, *, features: Tensor) -> dict[str, Any]:
        """Return the likeliest discrete actions, [B], or the means of the continuous ones, [B, action]."""
        inputs = self.module.forward_inference({Columns.OBS: features})[Columns.ACTION_DIST_INPUTS]
        distribution = self.module.get_inference_action_dist_cls()
        chosen = distribution.from_logits(inputs).to_deterministic().sample()
        # RLlib's squashed Gaussian gives its mean from before the squashing.
        return {"actions": chosen.tanh() if issubclass(distribution, TorchSquashedGaussian) else chosen}

    def weights(self) -> dict[str, Any]:
        """Return all tensors of the module by name, and the names of those that are trained."""
        learnt = [
            name for name, p in self.module.named_parameters() if p.requires_grad and not name.startswith("target_")
        ]
        return {"weights": {name: value.clone() for name, value in self.module.state_dict().items()}, "learnt": learnt}

    def set_weights(self, *, weights: dict[str, Tensor]) -> dict[str, Any]:
        """Load weights into the module."""
        self.module.load_state_dict(weights)
        return {}

    def stop(self) -> None:
        """Stop RLlib, but not Ray."""
        self.algorithm.stop()


def _config(algorithm: str) -> Any:
    config = getattr(import_module(f"ray.rllib.algorithms.{algorithm}"), f"{algorithm.upper()}Config")()
    # RLlib's new stack refuses `lr` of CQL beside the learning rates of its parts.
    return config.training(lr=None) if algorithm == "cql" else config


def _keep_order() -> None:
    """Read batches in the order of the files, as far as Ray Data can, without progress bars."""
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}


def _only(results: Any) -> Any:
    """Return the result of the only learner, which some versions of RLlib wrap."""
    first = next(iter(results))
    return first.get() if hasattr(first, "get") else first
