"""dt_pretrained: a Decision Transformer that Hugging Face's transformers saved, judged as it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dtbench.algorithm import History, Metrics, Rollout
from dtbench.data.actions import require_unit
from dtbench.data.dataset import TrajectoryDataset
from dtbench.decision_transformer import huggingface
from dtbench.decision_transformer.agent import CPU
from dtbench.decision_transformer.kv_cache import DecisionTransformerRollout
from dtbench.errors import InvalidValue
from dtbench.nn import greedy_actions

PUBLIC_SCALE, PUBLIC_CONTEXT = 1000.0, 20  # of the public code on Gym, from which the Hub's models come


@dataclass(frozen=True)
class PretrainedDecisionTransformer:
    """Judge a local folder of transformers' DecisionTransformerModel, untrained. Give it `train_steps: 0`.

    `path` holds config.json and model.safetensors; weights as a pickle are refused. What a model needs to act besides
    comes from here, else from dtbench.json in the folder, which `dtbench export hf` writes; else observations stay as
    they are, returns are divided by 1000 and the context is 20 steps, as in the public code on Gym. Files are
    identified by their content, so that a folder can be moved.
    """

    family: ClassVar[str] = "dt"

    path: str = ""  # the folder with config.json and model.safetensors
    observation_mean: tuple[float, ...] | None = None  # subtracted from observations; None: the folder's
    observation_std: tuple[float, ...] | None = None  # what they are then divided by; None: the folder's
    return_scale: float | None = None  # what returns are divided by; None: the folder's, else 1000
    context: int | None = None  # steps that the model sees; None: the folder's, else 20
    sha256: str = ""  # of configuration and weights, set when the trial is planned

    def __post_init__(self) -> None:
        """Set what is left out from the folder's files; raise InvalidValue where they are not those planned."""
        if not self.path:
            return
        folder = Path(self.path).expanduser().absolute()
        digest = huggingface.digest_of(folder)
        if self.sha256 not in ("", digest):
            raise InvalidValue(
                f"{folder} holds another model than the planned one: its SHA-256 is {digest[:12]}, planned was "
                f"{self.sha256[:12]}. Run the suite again."
            )
        acting = huggingface.read_acting(folder)
        values: dict[str, Any] = {"path": str(folder), "sha256": digest}
        if self.observation_mean is None and self.observation_std is None:
            values |= {"observation_mean": acting.observation_mean, "observation_std": acting.observation_std}
        if self.return_scale is None:
            values["return_scale"] = acting.return_scale or PUBLIC_SCALE
        if self.context is None:
            values["context"] = acting.context or PUBLIC_CONTEXT
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device = CPU) -> "PretrainedLearner":
        """Load the network; raise IncompatibleTask where its sizes are not those of the dataset."""
        if not self.path:
            raise InvalidValue("dt_pretrained needs a path: the folder with config.json and model.safetensors.")
        return PretrainedLearner(self, dataset, device=device)


class PretrainedLearner:
    """A learner that learns nothing and acts by the folder's network."""

    return_conditioned = True

    def __init__(
        self, algorithm: PretrainedDecisionTransformer, dataset: TrajectoryDataset, *, device: torch.device
    ) -> None:
        """Raise InvalidValue for moments of another size than the observations', and scales that are not positive."""
        require_unit("dt_pretrained", dataset.action_space)
        assert algorithm.context is not None
        assert algorithm.return_scale is not None
        if algorithm.context < 1 or not algorithm.return_scale > 0:
            sizes = f"context {algorithm.context} and return_scale {algorithm.return_scale}"
            raise InvalidValue(f"dt_pretrained: {sizes} must be positive.")
        self.context = algorithm.context
        self.network = huggingface.read_network(Path(algorithm.path), dataset, return_scale=algorithm.return_scale).to(
            device
        )
        shape = dataset.observation_space.shape or ()
        self.mean, self.scale = (values.to(device) for values in _moments(algorithm, shape))

    def update(self) -> Metrics:
        """Learn nothing."""
        return {}

    @torch.inference_mode()
    def act(self, history: History) -> Tensor:
        """Return the predicted actions, [B, *action]."""
        return greedy_actions(self._predict(history), self.network.action_space)

    def rollout(self) -> Rollout | None:
        """Return a rollout that caches keys and values."""
        return DecisionTransformerRollout(
            self.network, context=self.context, encode=self._encoder_input, predict=self._predict, anchored=False
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the weights."""
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the weights."""
        self.network.load_state_dict(state["network"])

    def _predict(self, history: History) -> Tensor:
        begin = int(history.mask.any(dim=0).int().argmax())  # steps before are padding in every row
        mask = history.mask[:, begin:]
        predicted, _ = self.network(
            self.network.returns.tokens(history.returns_to_go[:, begin:]),
            self._encoder_input(history.observations[:, begin:]),
            history.actions[:, begin:],
            history.timesteps[:, begin:],
            None if bool(mask.all()) else mask,
        )
        present: Tensor = predicted[:, -1]
        return present

    def _encoder_input(self, observations: Tensor) -> Tensor:
        return (observations.float() - self.mean) / self.scale


def _moments(algorithm: PretrainedDecisionTransformer, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return what observations of this shape are moved and divided by."""
    mean, std = algorithm.observation_mean, algorithm.observation_std
    if mean is None and std is None:
        return torch.zeros(shape), torch.ones(shape)
    size = math.prod(shape)
    for name, values in (("observation_mean", mean), ("observation_std", std)):
        if values is None or len(values) != size:
            count = "none" if values is None else len(values)
            raise InvalidValue(f"dt_pretrained: {name} has {count} numbers, and the task's observations {size}.")
    assert mean is not None
    assert std is not None
    if not min(std) > 0:
        raise InvalidValue(f"dt_pretrained: observation_std has {min(std)}, and must be positive.")
    return torch.tensor(mean).view(shape), torch.tensor(std).view(shape)
