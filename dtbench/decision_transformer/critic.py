"""Decision Transformer as a critic: predicted returns and the attention behind them (Chen et al. 2021, Figure 5)."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dtbench.algorithm import History


class Critic:
    """Predicts the return from an episode's beginning, and gives the attention behind the prediction.

    Its network is a copy in evaluation mode, so that it changes no learner and draws no random number. Return tokens
    are private, so that every prediction rests on observations and actions alone.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        values: NDArray[np.float64],
        weights: NDArray[np.float64],
        encode: Callable[[Tensor], Tensor],
        timesteps: Callable[[History], Tensor],
    ) -> None:
        """`values` are the distinct returns, `weights` those of `class_weights`."""
        self.network, self.values = network, values
        self._encode, self._timesteps = encode, timesteps
        self._shift = torch.from_numpy(np.log(weights)).float()

    @torch.inference_mode()
    def probabilities(self, history: History) -> Tensor:
        """P(return = value | observations so far, earlier actions) at every step, [B, T, values]."""
        _, logits = self.network(*self._inputs(history))
        unbiased: Tensor = logits - self._shift.to(logits.device)
        return unbiased.softmax(dim=-1)

    @torch.inference_mode()
    def attention(self, history: History) -> Tensor:
        """Return the attention of the prediction at each step, [layers, B, heads, T, T]: a row sums to 1.

        The observation and the action of a step count together.
        """
        weights: Tensor = self.network.attention_weights(*self._inputs(history))  # type: ignore[operator]
        return weights.sum(dim=-1)

    def _inputs(self, history: History) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        returns = torch.zeros_like(history.timesteps)
        mask = None if bool(history.mask.all()) else history.mask
        return returns, self._encode(history.observations), history.actions, self._timesteps(history), mask


def class_weights(
    returns_to_go: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return how much more often than in the data steps drawn by `weights` [N] have each return, [values].

    A network that learned from such draws gives P(R | history) times this, up to a constant, because weights that
    depend on the return alone leave P(history | R) as it is.
    """
    if weights is None or not len(values):
        return np.ones(len(values))
    places = np.searchsorted(values, returns_to_go)
    ratio: NDArray[np.float64] = np.bincount(places, weights) / weights.sum() / (np.bincount(places) / len(places))
    return ratio
