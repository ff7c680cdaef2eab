"""Families of algorithms: what orders, colours and filters contenders."""

from collections.abc import Mapping
from typing import Any

from dtbench.ledger.trial_spec import TrialSpec

FAMILIES = {
    "dt": "Decision Transformer",
    "imitation": "imitation",
    "td": "TD learning",
    "other": "other",
}

# Of trials that ran before results recorded it.
_EARLIER = {
    **dict.fromkeys(("dt", "dt_atari", "dt_pretrained"), "dt"),
    **dict.fromkeys(("bc", "rllib_bc", "rllib_marwil"), "imitation"),
    **dict.fromkeys(("cql", "discrete_cql", "quantile_cql", "iql", "td3_bc", "rebrac", "sac"), "td"),
    **dict.fromkeys(("qr_dqn", "rem", "rllib_cql", "rllib_iql"), "td"),
}


def family_of(spec: TrialSpec, result: Mapping[str, Any]) -> str:
    """Return the family that a trial's result records, else that of its algorithm; "other" where neither is known."""
    earlier = _EARLIER.get(spec.algorithm, "other")
    if earlier == "dt" and spec.hyperparameters.get("returns") == "none":
        earlier = "imitation"
    recorded = result.get("family", earlier)
    return recorded if recorded in FAMILIES else "other"
