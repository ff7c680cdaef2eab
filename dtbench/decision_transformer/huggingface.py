"""Folders of transformers' DecisionTransformerModel: read as our network, written from a trained one; no pickles."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.files import atomic_path
from dtbench.decision_transformer.agent import DecisionTransformer, DecisionTransformerLearner
from dtbench.decision_transformer.model import CausalTransformer
from dtbench.decision_transformer.network import DecisionTransformerNetwork
from dtbench.decision_transformer.returns import ReturnTokens
from dtbench.errors import IncompatibleTask, InvalidValue
from dtbench.nn import is_image

CONFIG, WEIGHTS, ACTING = "config.json", "model.safetensors", "dtbench.json"
MOST_BYTES = 1_000_000  # of a JSON file
# Defaults of transformers' DecisionTransformerConfig, which its files may leave out.
SIZES = {"state_dim": 17, "act_dim": 4, "hidden_size": 128, "max_ep_len": 4096, "n_layer": 3, "n_head": 1}
# Settings with the one value that our network has.
FIXED = {
    "action_tanh": True,
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
ACTIVATIONS = ("relu", "gelu")
NAMES = {  # theirs to ours
    "embed_timestep": "embed_timestep",
    "embed_return": "embed_return",
    "embed_state": "embed_observation.encoder",
    "embed_action": "embed_action",
    "embed_ln": "embed_norm",
    "predict_action.0": "action_head.0",
    "encoder.ln_f": "transformer.norm",
}
NAMES_IN_BLOCK = {
    "ln_1": "norm_1",
    "ln_2": "norm_2",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}


@dataclass(frozen=True, slots=True)
class Acting:
    """What a model needs to act besides its weights: the file dtbench.json beside them."""

    observation_mean: tuple[float, ...] | None = None
    observation_std: tuple[float, ...] | None = None  # what differences from the mean are divided by
    return_scale: float | None = None
    context: int | None = None  # steps


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of configuration and weights; raise InvalidValue where a file is missing."""
    digest = sha256()
    for path in (folder / CONFIG, weights_file(folder)):
        digest.update(_read_bytes(path))
    return digest.hexdigest()


def weights_file(folder: Path) -> Path:
    """Return the path of the weights; raise InvalidValue where there are none, or only as a pickle."""
    if not (folder / CONFIG).is_file():
        raise InvalidValue(
            f"{folder} holds no {CONFIG}: path is a local folder that save_pretrained of transformers' "
            "DecisionTransformerModel wrote. Download a model of the Hub with `hf download ID --local-dir FOLDER`."
        )
    path = folder / WEIGHTS
    if path.is_file():
        return path
    if (folder / "pytorch_model.bin").exists():
        raise InvalidValue(
            f"{folder} holds pytorch_model.bin, a pickle, which is code and never read. Where you trust it, convert "
            "it: DecisionTransformerModel.from_pretrained(FOLDER).save_pretrained(OTHER), and name OTHER."
        )
    raise InvalidValue(f"{folder} holds no {WEIGHTS}, in one file: save the model with save_pretrained.")


def read_acting(folder: Path) -> Acting:
    """Return the values of the folder's dtbench.json, none without one; raise InvalidValue for another layout."""
    path = folder / ACTING
    if not path.exists():
        return Acting()
    values = _read_json(path)
    try:
        moments = {name: values.get(name) for name in ("observation_mean", "observation_std")}
        scale, context = values.get("return_scale"), values.get("context")
        return Acting(
            **{name: None if value is None else tuple(map(float, value)) for name, value in moments.items()},
            return_scale=None if scale is None else float(scale),
            context=None if context is None else int(context),
        )
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{path}: {error}. It holds lists observation_mean and observation_std, ...") from error


def read_network(folder: Path, dataset: TrajectoryDataset, *, return_scale: float) -> DecisionTransformerNetwork:
    """Return the folder's network, in float32 on the CPU, for the spaces of `dataset`; it divides returns by a scale.

    Raises InvalidValue where the files are damaged, disagree or have a setting that our network lacks, and
    IncompatibleTask where the sizes of observations or actions are not those of the dataset's vectors.
    """
    path, config = weights_file(folder), _read_config(folder / CONFIG)
    _check_spaces(folder, config, dataset)
    weights = _read_weights(path)
    blocks = {name.split(".")[2] for name in weights if name.startswith("encoder.h.")}
    if len(blocks) != config["n_layer"]:
        raise InvalidValue(f"{path} has {len(blocks)} layers, and n_layer of {CONFIG} is {config['n_layer']}.")
    with torch.device("meta"):  # sizes that the weights do not have take no memory
        network = DecisionTransformerNetwork(
            observation_space=dataset.observation_space,
            action_space=dataset.action_space,
            transformer=CausalTransformer(
                hidden_size=config["hidden_size"],
                num_layers=config["n_layer"],
                num_heads=config["n_head"],
                dropout=0.0,
                activation=config["activation_function"],
            ),
            hidden_size=config["hidden_size"],
            max_timestep=config["max_ep_len"],
            returns=ReturnTokens(DecisionTransformer(return_scale=return_scale), dataset),
        )
    try:
        network.load_state_dict(weights_for_ours(weights), assign=True)
    except (RuntimeError, KeyError) as error:
        raise InvalidValue(f"{path} does not hold what {CONFIG} says: {error}") from error
    return network.requires_grad_(False).eval()


def write_folder(
    learner: DecisionTransformerLearner, folder: Path, *, about: Mapping[str, Any], force: bool = False
) -> None:
    """Write the learner's acting weights as a folder that transformers' DecisionTransformerModel loads.

    dtbench.json beside them has the moments of observations, the scale of returns and the context, with `about`.
    Raises InvalidValue where transformers' model lacks what the learner has, and where the folder is not empty.
    """
    if lacking := unlike_theirs(learner):
        raise InvalidValue(f"transformers' DecisionTransformerModel lacks what this policy has: {'; '.join(lacking)}.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise InvalidValue(f"{folder} is not empty. Use --force to overwrite its files, or another --out.")
    network, normalized = learner.network, learner.mean.dim() > 0
    acting = Acting(
        observation_mean=tuple(learner.mean.flatten().tolist()) if normalized else None,
        observation_std=tuple(learner.scale.flatten().tolist()) if normalized else None,
        return_scale=float(learner.returns.scale),
        context=learner.context,
    )
    theirs = weights_for_theirs({name: value.cpu() for name, value in learner.average.items()}, network)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, _safetensors().torch.save(theirs, metadata={"format": "pt"}))
    _write(folder / CONFIG, _json_bytes(_config_of(learner)))
    _write(folder / ACTING, _json_bytes({**asdict(acting), **about}))


def unlike_theirs(learner: DecisionTransformerLearner) -> list[str]:
    """Return what the learner has and transformers' model lacks, one text each."""
    algorithm, network = learner.algorithm, learner.network
    if type(network) is not DecisionTransformerNetwork:
        return [f"the network of {type(algorithm).__name__}, where only that of `dt` is theirs"]
    lacking = []
    if algorithm.returns != "given":
        lacking.append(f"returns={algorithm.returns}, where theirs are given")
    if algorithm.relative_timesteps:
        lacking.append("relative_timesteps, where theirs count from the episode's first step")
    if not isinstance(network.action_space, gym.spaces.Box):
        lacking.append(f"actions of {network.action_space}, where theirs are vectors")
    if not isinstance(network.observation_space, gym.spaces.Box) or is_image(network.observation_space):
        lacking.append(f"observations of {network.observation_space}, where theirs are vectors")
    return lacking


def weights_for_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of transformers' DecisionTransformerModel by the names of `DecisionTransformerNetwork`.

    Its state and return heads, which no action depends on, are left out. Raises KeyError where a name is missing.
    """
    renamed = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module in NAMES:
            renamed[f"{NAMES[module]}.{kind}"] = value
        elif module.startswith("encoder.h."):
            _, _, number, rest = module.split(".", 3)
            if rest in NAMES_IN_BLOCK:  # GPT-2 keeps linear maps transposed (`Conv1D`)
                transposed = ".c_" in rest and kind == "weight"
                renamed[f"transformer.blocks.{number}.{NAMES_IN_BLOCK[rest]}.{kind}"] = (
                    value.T if transposed else value
                )
    # It calls GPT-2 with position 0 for every token, which adds one constant vector after the layer norm.
    renamed["embed_norm.bias"] = state["embed_ln.bias"] + state["encoder.wpe.weight"][0]
    return renamed


def weights_for_theirs(state: Mapping[str, Tensor], network: DecisionTransformerNetwork) -> dict[str, Tensor]:
    """Return weights of our network by transformers' names; what no action depends on is zeros."""
    theirs = {ours: name for name, ours in NAMES.items()}
    in_block = {ours: name for name, ours in NAMES_IN_BLOCK.items()}
    renamed = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module in theirs:
            renamed[f"{theirs[module]}.{kind}"] = value
        else:
            _, _, number, rest = module.split(".", 3)
            transposed = in_block[rest].split(".")[-1].startswith("c_") and kind == "weight"
            renamed[f"encoder.h.{number}.{in_block[rest]}.{kind}"] = value.T if transposed else value
    hidden_size = state["embed_norm.bias"].shape[0]
    observed = math.prod(network.observation_space.shape or ())
    for head, outputs in (("predict_state", observed), ("predict_return", 1)):
        renamed |= {f"{head}.weight": torch.zeros(outputs, hidden_size), f"{head}.bias": torch.zeros(outputs)}
    for table, rows in (("wpe", _POSITIONS), ("wte", 1)):
        renamed[f"encoder.{table}.weight"] = torch.zeros(rows, hidden_size)
    return {name: value.contiguous() for name, value in renamed.items()}


_POSITIONS = 1024  # rows of GPT-2's table of positions, of which transformers' model reads the first alone


def _config_of(learner: DecisionTransformerLearner) -> dict[str, Any]:
    """Return the configuration of transformers' model with the learner's architecture."""
    algorithm, network = learner.algorithm, learner.network
    return {
        "architectures": ["DecisionTransformerModel"],
        "model_type": "decision_transformer",
        "state_dim": math.prod(network.observation_space.shape),
        "act_dim": math.prod(network.action_space.shape),
        "max_ep_len": network.embed_timestep.num_embeddings,
        "hidden_size": algorithm.hidden_size,
        "n_layer": algorithm.num_layers,
        "n_head": algorithm.num_heads,
        "n_inner": 4 * algorithm.hidden_size,
        "n_positions": _POSITIONS,
        "vocab_size": 1,
        "activation_function": algorithm.activation,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), algorithm.dropout),
        **FIXED,
    }


def _read_config(path: Path) -> dict[str, Any]:
    """Return sizes and activation of a configuration; raise InvalidValue for what our network lacks."""
    stated = _read_json(path)
    if (kind := stated.get("model_type", "decision_transformer")) != "decision_transformer":
        raise InvalidValue(f"{path} is of a {kind!r:.60}, not of a decision_transformer.")
    config: dict[str, Any] = {name: stated.get(name, value) for name, value in SIZES.items()}
    for name, value in config.items():
        if type(value) is not int or not 1 <= value <= 10_000_000:
            raise InvalidValue(f"{path}: {name} is {value!r:.60}, not a whole number from 1 on.")
    config["activation_function"] = stated.get("activation_function", "relu")
    inner = 4 * config["hidden_size"]
    lacking = [f"{name}={stated[name]!r:.60}" for name, value in FIXED.items() if stated.get(name, value) != value]
    if stated.get("n_inner") not in (None, inner):
        lacking.append(f"n_inner={stated['n_inner']!r:.60} (ours is 4 hidden_size, {inner})")
    if config["activation_function"] not in ACTIVATIONS:
        lacking.append(f"activation_function={config['activation_function']!r:.60} (ours: {', '.join(ACTIVATIONS)})")
    if config["hidden_size"] % config["n_head"]:
        lacking.append(f"hidden_size={config['hidden_size']}, no multiple of n_head={config['n_head']}")
    if lacking:
        raise InvalidValue(f"{path} has what dtbench's Decision Transformer lacks: {'; '.join(lacking)}.")
    return config


def _check_spaces(folder: Path, config: Mapping[str, Any], dataset: TrajectoryDataset) -> None:
    """Raise IncompatibleTask unless observations and actions are vectors of the model's sizes."""
    for what, name, space in (
        ("observations", "state_dim", dataset.observation_space),
        ("actions", "act_dim", dataset.action_space),
    ):
        if not isinstance(space, gym.spaces.Box) or is_image(space) or math.prod(space.shape) != config[name]:
            raise IncompatibleTask(f"the model in {folder} has {what} of {config[name]} numbers, the task {space}.")


def _read_weights(path: Path) -> dict[str, Tensor]:
    library = _safetensors()
    try:
        weights: dict[str, Tensor] = library.torch.load_file(path)
    except (library.SafetensorError, OSError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}. Download or save the model again.") from error
    return {name: value.float() for name, value in weights.items()}


def _safetensors() -> Any:
    """Import safetensors; raise InvalidValue where it is not installed."""
    try:
        import safetensors
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise InvalidValue(f"models of Hugging Face need {error.name}: pip install safetensors.") from error
    return safetensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read_bytes(path, most=MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise InvalidValue(f"{path} holds no mapping, but a {type(values).__name__}.")
    return values


def _read_bytes(path: Path, most: int | None = None) -> bytes:
    try:
        if most is not None and path.stat().st_size > most:
            raise InvalidValue(f"{path} has more than {most} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror or error}.") from error


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _json_bytes(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
