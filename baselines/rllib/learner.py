"""RLlib's offline algorithms as contenders: BC, MARWIL, CQL and IQL of ray[rllib], on the same data and evaluator."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from baselines.networks import flat_observations, flat_size, require_flat_boxes
from baselines.rllib.export import FOLLOWED, export
from baselines.rllib.process import RLlibProcess
from dtbench import DtbenchError, History, IncompatibleTask, InvalidValue, Metrics, TrajectoryDataset
from dtbench.data import require_unit
from dtbench.nn import is_image

REQUIRED = ("ray", "tree", "lz4", "ormsgpack", "scipy")  # of RLlib's extra, imported by ray.rllib


@dataclass(frozen=True)
class _RLlibAlgorithm:
    """The hyperparameters of all four, with RLlib's names and defaults (2.60), but for `steps_per_iteration`."""

    version: ClassVar[int] = 1
    name: ClassVar[str]
    discrete: ClassVar[bool]  # RLlib has it for discrete actions too

    train_batch_size_per_learner: int = 2000  # transitions in a batch: 2000 of MARWIL and what derives from it
    gamma: float = 0.99  # factor of a reward one step later, in [0, 1]
    grad_clip: float | None = None  # largest norm of the gradient; None: no limit
    fcnet_hiddens: tuple[int, ...] = (256, 256)  # units of each hidden layer
    fcnet_activation: str = "tanh"  # after each hidden layer: tanh, relu, ...
    steps_per_iteration: int = 1  # RLlib's dataset_num_iters_per_learner: gradient steps of one `train()`

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "RLlibLearner":
        """Check that it fits; RLlib starts with the first iteration, always on the CPU.

        Raises DtbenchError without the extra, IncompatibleTask for spaces that RLlib does not take, InvalidValue for
        `steps_per_iteration` below 1, or 2 for CQL.
        """
        _require_extra(f"rllib_{self.name}")
        _require_spaces(self, dataset)
        if self.steps_per_iteration < (least := 2 if self.name == "cql" else 1):
            raise InvalidValue(f"rllib_{self.name}: steps_per_iteration must be {least} or more.")
        return RLlibLearner(self, dataset, seed=seed)


@dataclass(frozen=True)
class RLlibBC(_RLlibAlgorithm):
    """Behaviour cloning: the likelihood of the data's actions under a Gaussian, or a categorical distribution."""

    family: ClassVar[str] = "imitation"
    name: ClassVar[str] = "bc"
    discrete: ClassVar[bool] = True

    lr: float = 1e-4  # learning rate of Adam


@dataclass(frozen=True)
class RLlibMARWIL(_RLlibAlgorithm):
    """Monotonic advantage re-weighted imitation learning (Wang et al. 2018).

    RLlib cuts the data into single steps, so a value's target is r + γ V(s') with the V of when the data were last
    read from their beginning, not the return of Wang et al.
    """

    family: ClassVar[str] = "imitation"
    name: ClassVar[str] = "marwil"
    discrete: ClassVar[bool] = True

    lr: float = 1e-4  # learning rate of Adam
    beta: float = 1.0  # factor of the advantage in the weight exp(β A) of an action; at 0 it is BC
    vf_coeff: float = 1.0  # weight of the value's loss
    # share of a batch in the moving average of squared advantages, which normalises them
    moving_average_sqd_adv_norm_update_rate: float = 1e-8
    moving_average_sqd_adv_norm_start: float = 100.0  # the first value of that average


@dataclass(frozen=True)
class RLlibCQL(_RLlibAlgorithm):
    """Conservative Q-learning (Kumar et al. 2020), continuous actions only, with a policy squashed by tanh.

    RLlib 2.60 cannot train it a single step at a time (KeyError), and moves its target networks once an iteration.
    """

    family: ClassVar[str] = "td"
    name: ClassVar[str] = "cql"
    discrete: ClassVar[bool] = False

    train_batch_size_per_learner: int = 256  # transitions in a batch: SAC's
    steps_per_iteration: int = 2  # gradient steps of one `train()`, at least 2
    actor_lr: float = 1e-4  # learning rate of the policy
    critic_lr: float = 1e-3  # learning rate of the critics
    alpha_lr: float = 1e-3  # learning rate of the entropy's weight
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    target_network_update_freq: int = 0  # steps between two updates of the target networks; 0: at each iteration
    twin_q: bool = True  # take the lower of two critics
    initial_alpha: float = 1.0  # first weight of the entropy
    bc_iters: int = 20_000  # first gradient steps, in which the policy imitates
    temperature: float = 1.0  # of the penalty's log-sum-exp, above 0
    num_actions: int = 10  # actions sampled for the penalty's log-sum-exp
    min_q_weight: float = 5.0  # weight of the penalty CQL(H), eq. 4
    deterministic_backup: bool = True  # value the next step without its entropy


@dataclass(frozen=True)
class RLlibIQL(_RLlibAlgorithm):
    """Implicit Q-learning (Kostrikov et al. 2021), continuous actions only, with a policy squashed by tanh.

    RLlib accepts a `beta`, the paper's inverse temperature, of at most 1, where the paper has 3 on Gym; its `tau` of 1
    copies the target networks at each iteration, where the paper has 0.005.
    """

    family: ClassVar[str] = "td"
    name: ClassVar[str] = "iql"
    discrete: ClassVar[bool] = False

    actor_lr: float = 3e-4  # learning rate of the policy
    critic_lr: float = 3e-4  # learning rate of the critics
    value_lr: float = 3e-4  # learning rate of the value
    beta: float = 0.1  # inverse temperature of the advantage in the actor's loss, eq. 7, at most 1
    expectile: float = 0.8  # τ of eq. 5, in (0, 1)
    twin_q: bool = True  # take the lower of two critics
    tau: float = 1.0  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    target_network_update_freq: int = 0  # steps between two updates of the target networks; 0: at each iteration


class RLlibLearner:
    """RLlib's learner under dtbench's contract: `update` counts steps, every k-th call trains k of them.

    Between iterations it has learned less than was counted, so it refuses to act there. It does not resume, since
    Ray Data cannot save its position in the stream.
    """

    context = 1
    return_conditioned = False
    resumable = False

    def __init__(self, algorithm: _RLlibAlgorithm, dataset: TrajectoryDataset, *, seed: int) -> None:
        self.algorithm, self.dataset, self.seed = algorithm, dataset, seed
        self.steps = self._began_at = 0
        self._metrics: Mapping[str, float] = {}
        self._process: RLlibProcess | None = None

    def update(self) -> Metrics:
        """Count a step, or train all counted ones; return the losses of the last trained step."""
        self.steps += 1
        if self.steps % self.algorithm.steps_per_iteration == 0:
            answer = self._running().request("train")
            self._metrics, trained = answer["metrics"], answer["steps"]
            if trained != self.steps - self._began_at:
                raise RuntimeError(f"RLlib took {trained} gradient steps, not {self.steps - self._began_at}.")
        return self._metrics

    def act(self, history: History) -> Tensor:
        """Return the likeliest discrete action, or the mean of the continuous ones, [B, *action].

        Raises InvalidValue between iterations.
        """
        if self.steps % self.algorithm.steps_per_iteration:
            raise InvalidValue(
                f"step {self.steps} is not a multiple of steps_per_iteration {self.algorithm.steps_per_iteration}. "
                "Set train_steps and eval_interval to multiples of it."
            )
        flat = flat_observations(history.observations[:, -1], self.dataset.observation_space)
        chosen: Tensor = self._running().request("act", features=flat.cpu())["actions"]
        space = self.dataset.action_space
        return chosen + int(space.start) if isinstance(space, gym.spaces.Discrete) else chosen.clamp(-1, 1)

    @property
    def network(self) -> nn.Module:
        """The trained weights of the module, without target networks."""
        answer = self._running().request("weights")
        return nn.ParameterList([answer["weights"][name] for name in answer["learnt"]])

    def state_dict(self) -> dict[str, Any]:
        """Return the module's weights and the steps: enough to act, not to resume."""
        return {"steps": self.steps, "weights": self._running().request("weights")["weights"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the weights to act with; optimizers and the position in the data are not restored."""
        self.steps = self._began_at = int(state["steps"])
        self._running().request("set_weights", weights=dict(state["weights"]))

    def _running(self) -> RLlibProcess:
        if self._process is None:
            self._process = RLlibProcess(self._settings())
        return self._process

    def _settings(self) -> dict[str, Any]:
        values = asdict(self.algorithm)
        actions = self.dataset.action_space
        discrete = isinstance(actions, gym.spaces.Discrete)
        return {
            "algorithm": self.algorithm.name,
            "steps_per_iteration": values.pop("steps_per_iteration"),
            "hyperparameters": values,
            "folder": str(_folder(self.algorithm, self.dataset)),
            "features": flat_size(self.dataset.observation_space),
            "discrete": int(actions.n) if isinstance(actions, gym.spaces.Discrete) else 0,
            "continuous": 0 if discrete else flat_size(actions),
            "seed": self.seed,
            "threads": torch.get_num_threads(),
        }


def _folder(algorithm: _RLlibAlgorithm, dataset: TrajectoryDataset) -> Path:
    """Return the exported data; learners of values leave out steps whose successor is unknown."""
    folder = export(dataset)
    return folder if algorithm.name == "bc" else folder / FOLLOWED


def _require_extra(name: str) -> None:
    if missing := [module for module in REQUIRED if find_spec(module) is None]:
        raise DtbenchError(f"{name} needs RLlib, and {', '.join(missing)} is missing: pip install 'dtbench[rllib]'.")


def _require_spaces(algorithm: _RLlibAlgorithm, dataset: TrajectoryDataset) -> None:
    name = f"rllib_{algorithm.name}"
    if is_image(dataset.observation_space) or dataset.frame_stack > 1:
        raise IncompatibleTask(f"{name} reads flat observations, not images. Try bc, dt_atari or quantile_cql.")
    if not algorithm.discrete:
        require_flat_boxes(name, dataset)
        return
    actions = dataset.action_space
    if isinstance(actions, gym.spaces.Discrete):
        return
    if not isinstance(actions, gym.spaces.Box) or len(actions.shape) != 1:
        raise IncompatibleTask(f"{name} needs discrete actions or a flat Box of them, not {actions}.")
    require_unit(name, actions)
