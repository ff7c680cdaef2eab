"""JAX-CORL's side of `whole_runs`: one whole training run, in an interpreter of its own that imports no dtbench.

    jax_corl_training.py CHECKOUT DATA.npz OUT '{"algorithm": "IQL", "seed": 0, "steps": 100000, "every": 10000, ...}'

DATA.npz holds transitions as the learner shall see them (scaled), and pairs of observations and actions. After every
`every` updates OUT/STEP.npz gets the actor's layers (w0, b0, w1, ...) and `values`, the mean of both critics at the
pairs.
Its script is imported as `jax_corl_peer` does it: the only changes are sizes and that layers are not normalised.
"""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_corl_peer import UPDATES_A_CALL, script


def main(checkout: str, path: str, out: str, settings: dict[str, Any]) -> None:
    """Train, and write the actor and its values at every checkpoint."""
    jax.devices()
    for name in ("d4rl", "gym", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["gym"].Env = object  # type: ignore[attr-defined]
    name, data = settings["algorithm"], np.load(path)
    module = script(Path(checkout), name, {**settings, "layers": {name: settings["layers"]}})
    if name == "TD3+BC":
        plain = module.MLP
        module.MLP = lambda sizes, layer_norm=False: plain(sizes)
    module.config = module.config.model_copy(update={"max_steps": settings["steps"]})
    fields = {field: data[field] for field in ("observations", "actions", "rewards", "next_observations", "dones")}
    fields["dones_float"] = fields["dones"]
    transitions = module.Transition(**{name: jnp.asarray(fields[name]) for name in module.Transition._fields})
    learner, make = {
        "CQL": (module.__dict__.get("CQL"), module.__dict__.get("create_cql_train_state")),
        "IQL": (module.__dict__.get("IQL"), module.__dict__.get("create_iql_train_state")),
        "TD3+BC": (module.__dict__.get("TD3BC"), module.__dict__.get("create_td3bc_train_state")),
    }[name]
    assert learner is not None
    assert make is not None
    making, rng = jax.random.split(jax.random.PRNGKey(settings["seed"]))
    state = make(making, transitions.observations[0], transitions.actions[0], module.config)
    step = jax.jit(learner().update_n_times, static_argnums=(3,))
    pairs = jnp.asarray(data["pair_observations"]), jnp.asarray(data["pair_actions"])
    for done in range(UPDATES_A_CALL, settings["steps"] + 1, UPDATES_A_CALL):
        rng, drawing = jax.random.split(rng)
        state, _ = step(state, transitions, drawing, module.config)
        if done % settings["every"] == 0:
            critics = (state.qf1, state.qf2) if name == "CQL" else (state.critic,)
            values = np.array([one.apply_fn(one.params, *pairs) for one in critics]).reshape(2, -1).mean(axis=0)
            layers = {f"{kind}{index}": array for index, layer in enumerate(_layers(state)) for kind, array in layer}
            np.savez(Path(out) / f"{done}.npz", allow_pickle=False, values=values, **layers)


def _layers(state: Any) -> Iterator[list[tuple[str, Any]]]:
    """Yield weight and bias of each of the actor's layers; of CQL's last one the half that gives means."""
    if hasattr(state, "policy"):
        hidden = state.policy.params["params"]["base_network"]
        *found, last = [hidden[name] for name in sorted(hidden)]
        actions = last["bias"].shape[0] // 2
        found.append({"kernel": last["kernel"][:, :actions], "bias": last["bias"][:actions]})
    else:
        found = list(_actor_layers(state.actor.params["params"]))
    for layer in found:
        yield [("w", np.asarray(layer["kernel"])), ("b", np.asarray(layer["bias"]))]


def _actor_layers(tree: Any) -> Iterator[Any]:
    hidden = tree["MLP_0"]
    yield from (hidden[name] for name in sorted(hidden) if name.startswith("Dense"))
    if "Dense_0" in tree:
        yield tree["Dense_0"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
