"""Earlier names of settings: trial keys are computed from them, and archived trials use them."""

from collections.abc import Mapping
from typing import Any

from dtbench.errors import InvalidValue

_MLP = {"hidden_size": "width", "num_layers": "layers"}
_DECISION_TRANSFORMER = {
    **_MLP,
    "num_heads": "heads",
    "init_std": "initial_std",
    "grad_clip": "gradient_clip",
    "ema_decay": "average_decay",
}

HYPERPARAMETERS: Mapping[str, Mapping[str, str]] = {  # algorithm -> name -> name in the key
    "bc": _MLP,
    "cql": {**_MLP, "tau": "target_rate", "alpha": "penalty"},
    "discrete_cql": {
        **_MLP,
        "num_heads": "heads",
        "tau": "target_rate",
        "alpha": "penalty",
        "grad_clip": "gradient_clip",
    },
    "dt": _DECISION_TRANSFORMER,
    "dt_atari": _DECISION_TRANSFORMER,
    "iql": {**_MLP, "tau": "target_rate"},
    "qr_dqn": _MLP,
    "quantile_cql": {**_MLP, "alpha": "penalty"},
    "rem": {**_MLP, "num_heads": "heads"},
    "sac": {**_MLP, "tau": "target_rate", "actor_hidden_size": "actor_width"},
    "td3_bc": {**_MLP, "tau": "target_rate"},
}
SETTINGS = {"train_steps": "budget", "eval_interval": "evaluate_every"}  # of a contender
ACTION_MODES = {"greedy": "argmax", "epsilon_greedy": "epsilon"}


def key_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a trial's spec under the names from which its key is computed."""
    evaluation = dict(spec["evaluation"])
    evaluation["action_mode"] = ACTION_MODES.get(evaluation["action_mode"], evaluation["action_mode"])
    names = HYPERPARAMETERS.get(spec["algorithm"], {})
    hyperparameters = _renamed(spec["hyperparameters"], names)
    return {**_renamed(spec, SETTINGS), "hyperparameters": hyperparameters, "evaluation": evaluation}


def current_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a trial's spec under current names."""
    hyperparameters = current_hyperparameters(spec["algorithm"], spec["hyperparameters"])
    evaluation = with_current_action_mode(spec["evaluation"])
    return {**_renamed(spec, _inverse(SETTINGS)), "hyperparameters": hyperparameters, "evaluation": evaluation}


def current_hyperparameters(algorithm: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of an algorithm under their current names."""
    return _renamed(hyperparameters, _inverse(HYPERPARAMETERS.get(algorithm, {})))


def with_current_action_mode(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an evaluation or a result with the current name of `action_mode`."""
    if "action_mode" not in settings:
        return dict(settings)
    mode = settings["action_mode"]
    return {**settings, "action_mode": _inverse(ACTION_MODES).get(mode, mode)}


def check_current(name: str, algorithm: str = "") -> None:
    """Raise InvalidValue, with the current name, for an earlier name of a setting, mode or hyperparameter."""
    current = _inverse({**SETTINGS, **ACTION_MODES, **HYPERPARAMETERS.get(algorithm, {})}).get(name)
    if current:
        raise InvalidValue(f"{name} is now called {current}: write {current}.")


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {earlier: name for name, earlier in names.items()}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
