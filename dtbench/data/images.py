"""Images of a dataset: which observations are images, and the scale on which they differ."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from dtbench.data.trajectories import TrajectoryDataset, give_back

SAMPLED = 2000  # frames that the scale is made from, evenly spread over the data


def is_image(space: gym.Space[Any]) -> bool:
    """Whether observations are stacks of 84 x 84 frames of bytes, [frames, 84, 84]."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and space.shape[1:] == (84, 84)


class ImageScale(nn.Module):
    """Bytes to numbers, [B, frames, 84, 84]: between 0 and 1, or standardised by the data.

    Most of a game's screen never changes. Standardised, every frame is what differs from the mean frame, in units of
    the standard deviation of all that differs: what moves is large then, and networks learn several times as fast.
    """

    mean: Tensor
    rate: Tensor

    def __init__(self, mean: Tensor, rate: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("rate", rate)

    def forward(self, images: Tensor) -> Tensor:
        """Floats of the same shape."""
        return to_floats(images).sub_(self.mean).mul_(self.rate)


def to_floats(images: Tensor) -> Tensor:
    """Bytes [B, frames, 84, 84] as floats; a pixel's frames lie side by side, which makes convolutions faster."""
    if torch._C._are_functorch_transforms_active():  # vmap knows no order but the usual
        return images.float()
    return images.contiguous(memory_format=torch.channels_last).float()


def image_scale(dataset: TrajectoryDataset, *, standardize: bool) -> ImageScale:
    """The scale of a dataset's frames; without `standardize` division by 255, as in the papers."""
    if not standardize:
        return ImageScale(torch.zeros(()), torch.tensor(1 / 255))
    steps = np.unique(np.linspace(0, dataset.num_steps - 1, SAMPLED).astype(np.int64))
    newest = dataset.observations_at(steps)[:, -1].astype(np.float64)
    give_back(dataset.observations)
    mean = newest.mean(axis=0)
    deviation = (newest - mean).std()
    return ImageScale(torch.tensor(mean, dtype=torch.float32), torch.tensor(1 / max(deviation, 1.0)).float())
