"""Where the hyperparameters of dtbench's own algorithms may lie, by their names, which mean the same everywhere."""

import math
from dataclasses import dataclass
from typing import Any

from dtbench.errors import InvalidValue

OWN_PACKAGES = ("baselines", "dtbench")  # other packages may mean something else by a name


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between two ends, each of which may itself be inside."""

    low: float
    high: float = math.inf
    low_inside: bool = True
    high_inside: bool = True

    def __contains__(self, value: float) -> bool:
        """Return whether a number lies inside."""
        above = value >= self.low if self.low_inside else value > self.low
        return above and (value <= self.high if self.high_inside else value < self.high)

    def __str__(self) -> str:
        """Return it as a mathematician writes it, or as words where it has no upper end."""
        if math.isinf(self.high):
            return f"{self.low:g} or more" if self.low_inside else f"above {self.low:g}"
        return f"in {'[' if self.low_inside else '('}{self.low:g}, {self.high:g}{']' if self.high_inside else ')'}"


_COUNT, _POSITIVE = Range(1), Range(0, low_inside=False)
_NOT_NEGATIVE = Range(0)
_SHARE, _RATE = Range(0, 1), Range(0, 1, low_inside=False)
_BELOW_ONE = Range(0, 1, high_inside=False)
RANGES = {
    "actor_hidden_size": _COUNT,
    "actor_lr": _NOT_NEGATIVE,
    "actor_penalty": _NOT_NEGATIVE,
    "adam_epsilon": _POSITIVE,
    "alpha": _NOT_NEGATIVE,
    "alpha_lr": _NOT_NEGATIVE,
    "batch_size": _COUNT,
    "betas": _BELOW_ONE,
    "best_fraction": _RATE,
    "channels": _COUNT,
    "cloning_steps": _NOT_NEGATIVE,
    "context": _COUNT,
    "critic_learning_rate": _NOT_NEGATIVE,
    "critic_lr": _NOT_NEGATIVE,
    "critic_penalty": _NOT_NEGATIVE,
    "decay_steps": _NOT_NEGATIVE,
    "discount": _SHARE,
    "dropout": _BELOW_ONE,
    "ema_decay": _BELOW_ONE,
    "expectile": Range(0, 1, low_inside=False, high_inside=False),
    "fcnet_hiddens": _COUNT,
    "gamma": _SHARE,
    "grad_clip": _POSITIVE,
    "hidden": _COUNT,
    "hidden_size": _COUNT,
    "init_std": _NOT_NEGATIVE,
    "learning_rate": _NOT_NEGATIVE,
    "lr": _NOT_NEGATIVE,
    "max_timestep": _COUNT,
    "maximum_weight": _POSITIVE,
    "noise_clip": _NOT_NEGATIVE,
    "num_heads": _COUNT,
    "num_layers": _NOT_NEGATIVE,
    "policy_every": _COUNT,
    "policy_learning_rate": _NOT_NEGATIVE,
    "policy_noise": _NOT_NEGATIVE,
    "quantiles": _COUNT,
    "return_floor": _BELOW_ONE,
    "return_scale": _POSITIVE,
    "sampled_actions": _COUNT,
    "target_every": _COUNT,
    "tau": _RATE,
    "temperature": _NOT_NEGATIVE,
    "timestep_std": _NOT_NEGATIVE,
    "train_batch_size_per_learner": _COUNT,
    "value_lr": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
}


def check_range(algorithm: str, name: str, value: Any) -> None:
    """Raise InvalidValue for a number, or one of several, outside of the range of its name."""
    if isinstance(value, tuple | list):
        for item in value:
            check_range(algorithm, name, item)
    known = RANGES.get(name)
    if known and isinstance(value, int | float) and value not in known:
        raise InvalidValue(f"{algorithm}: {name} = {value:g} must be {known}.")
