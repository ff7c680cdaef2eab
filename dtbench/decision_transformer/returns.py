"""Returns as Decision Transformer tells them: which there are to choose from, and which is chosen."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dtbench.data.dataset import TrajectoryDataset
from dtbench.errors import InvalidValue

MAX_RETURN_BINS = 512


def label_returns(dataset: TrajectoryDataset, cut_off_return: float | None) -> NDArray[np.float64]:
    """Each step's return-to-go, [N], but `cut_off_return` throughout the episodes that never ended."""
    if cut_off_return is None:
        return dataset.returns_to_go
    ended = np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    return np.where(np.repeat(ended, dataset.lengths), dataset.returns_to_go, cut_off_return)


def distinct_returns(returns_to_go: NDArray[np.float64]) -> NDArray[np.float64]:
    """The returns to choose from, in rising order; raise InvalidValue where they are too many to enumerate."""
    values = np.unique(returns_to_go)
    if len(values) > MAX_RETURN_BINS:
        raise InvalidValue(
            f"returns=generated chooses among the distinct returns of the data, at most {MAX_RETURN_BINS}; "
            f"these data have {len(values)}. Use returns=given."
        )
    return values


def likely_high_return(logits: Tensor, values: Tensor, *, power: float, floor: float) -> Tensor:
    """Index of the return in `values` (rising, [R]) that maximises P(R) P_prior(R)^power, [B] from logits [B, R].

    P_prior(R = k steps) ~ T + 1 - k (Chen et al. 2021, appendix); with T + 1 steps for "never", that is R - min R.
    Returns less likely than `floor` are taken for impossible: no softmax gives a true zero, and the prior's tenth
    power lifts what little it gives by up to 1e10. The floor is not the paper's.
    """
    log_likelihood = logits.log_softmax(dim=-1)
    possible = log_likelihood.exp() >= floor
    weighed = log_likelihood + (power * (values - values.min()).log() if power else 0.0)
    return weighed.masked_fill(~possible, -math.inf).argmax(dim=-1)
