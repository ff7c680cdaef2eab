"""JAX-CORL's side of `td_update`: times its updates, each with the drawing of its batch, in its own process.

An interpreter that has jax, flax, optax and distrax (`make peers-jax`) runs this file, which imports no dtbench:

    jax_corl_peer.py CHECKOUT DATA.npz '{"batch": 256, "clock": "cpu", "width": 256, "layers": {"CQL": 3}, ...}'

CHECKOUT is one of https://github.com/nissymori/JAX-CORL. Its scripts are imported as they are: d4rl, gym and wandb,
which an update does not use, are replaced by empty modules, and settings come from the command line, as it reads them.
A call takes `n_jitted_updates` updates, 8 as in its scripts. Two settings differ from its defaults so that both sides
compute the same: its layer normalisation, which neither the papers nor we have, is left out, and CQL has as many
hidden layers as ours.

It writes one line of versions and names when it is ready, then answers each line `["CQL", 10]` with the seconds of 10
updates.
"""

import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

UPDATES_A_CALL = 8


def main(checkout: str, path: str, settings: dict[str, Any]) -> None:
    """Build the learners, then answer until standard input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false" if settings["threads"] == 1 else ""
    jax.devices()  # starts with these flags; the scripts set others, for a GPU, when they are imported
    now = {"wall": time.perf_counter, "cpu": time.process_time}[settings["clock"]]
    for name in ("d4rl", "gym", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["gym"].Env = object  # type: ignore[attr-defined]
    scripts = {name: script(Path(checkout), name, settings) for name in settings["layers"] if name in FILES}
    turns = {f"{name}, drawing too": updates(name, module, path) for name, module in scripts.items()}
    versions = {"jax": jax.__version__, "flax": flax.__version__}
    out.write(json.dumps({"versions": versions, "turns": list(turns)}) + "\n")
    for line in sys.stdin:
        name, count = json.loads(line)
        call, calls = turns[name], -(-count // UPDATES_A_CALL)
        started = now()
        for _ in range(calls):
            state = call()
        jax.block_until_ready(state)
        out.write(f"{(now() - started) * count / (calls * UPDATES_A_CALL)}\n")


FILES = {"CQL": "cql", "IQL": "iql", "TD3+BC": "td3bc"}


def script(checkout: Path, name: str, settings: dict[str, Any]) -> Any:
    """Import one of its scripts with our sizes."""
    options = {
        "CQL": ["action_dim=3", "orthogonal_init=true", "cql_min_q_weight=10.0", "policy_lr=0.00003"],
        "IQL": ["layer_norm=false"],
        "TD3+BC": ["actor_lr=0.0003", "critic_lr=0.0003"],
    }[name]
    sys.argv = [name, f"batch_size={settings['batch']}", *options]
    spec = importlib.util.spec_from_file_location(f"jax_corl_{FILES[name]}", checkout / "algos" / f"{FILES[name]}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sizes = (settings["width"],) * settings["layers"][name]  # after validation: its CQL's type allows one layer
    module.config = module.config.model_copy(update={"hidden_dims": sizes})
    return module


def updates(name: str, module: Any, path: str) -> Callable[[], Any]:
    """Return a function that takes `UPDATES_A_CALL` updates of one learner and returns its state."""
    config = module.config
    assert config.n_jitted_updates == UPDATES_A_CALL
    if name == "TD3+BC":
        plain = module.MLP
        module.MLP = lambda sizes, layer_norm=False: plain(sizes)
    data = transitions(module, path)
    rng, making = jax.random.split(jax.random.PRNGKey(0))
    example = jax.tree_util.tree_map(lambda x: x[0], data)
    make = {"CQL": "create_cql_train_state", "IQL": "create_iql_train_state", "TD3+BC": "create_td3bc_train_state"}
    algorithm = {"CQL": "CQL", "IQL": "IQL", "TD3+BC": "TD3BC"}
    learner = getattr(module, algorithm[name])()
    state = getattr(module, make[name])(making, example.observations, example.actions, config)
    step = jax.jit(learner.update_n_times, static_argnums=(3,))
    kept = {"state": state, "rng": rng}

    def call() -> Any:
        kept["rng"], drawing = jax.random.split(kept["rng"])
        kept["state"], _ = step(kept["state"], data, drawing, config)
        return kept["state"]

    for _ in range(2):  # its CQL is compiled twice, as its first state has other types than the later ones
        jax.block_until_ready(call())
    return call


def transitions(module: Any, path: str) -> Any:
    """Return the transitions of the benchmark's data; every episode's last step is left out."""
    data = np.load(path)
    inside = ~(data["timeouts"] > 0)
    inside[-1] = False
    following = np.roll(data["observations"], -1, axis=0)
    fields = {
        "observations": data["observations"][inside],
        "actions": data["actions"][inside],
        "rewards": data["rewards"][inside],
        "next_observations": following[inside],
        "dones": data["terminals"][inside],
        "dones_float": data["terminals"][inside],
    }
    names = module.Transition._fields
    return module.Transition(**{name: jnp.asarray(fields[name], jnp.float32) for name in names})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
