"""The scale on which images are read."""

import gymnasium as gym
import numpy as np
import torch

from dtbench import TrajectoryDataset, make_dataset
from dtbench.nn import image_scale, is_image


def frames(*, moving: int) -> TrajectoryDataset:
    """Forty frames of a grey screen on which one square moves."""
    pixels = np.full((40, 84, 84), 100, np.uint8)
    for step in range(40):
        pixels[step, step, 2 * step % 80 : 2 * step % 80 + 4] = 100 + moving
    return make_dataset(
        observations=pixels,
        actions=np.zeros(40, np.int64),
        rewards=np.zeros(40, np.float32),
        terminals=np.arange(40) == 39,
        lengths=np.array([40]),
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(2),
        frame_stack=4,
    )


def test_bytes_are_divided_by_255_as_in_the_papers() -> None:
    scale = image_scale(frames(moving=50), standardize=False)
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 4, 1, 3).contiguous()
    torch.testing.assert_close(scale(images)[0, 0, 0], torch.tensor([0.0, 0.2, 1.0]))


def test_standardised_frames_have_mean_zero_and_unit_deviation() -> None:
    data = frames(moving=100)
    scaled = image_scale(data, standardize=True)(torch.from_numpy(data.observations_at(np.arange(3, 40))))
    newest = scaled[:, -1]
    assert abs(float(newest.mean())) < 0.05
    assert abs(float(newest.std()) - 1) < 0.1
    assert float(newest.max()) > 10  # what moves stands out


def test_a_screen_that_never_changes_is_not_blown_up() -> None:
    data = frames(moving=0)
    scaled = image_scale(data, standardize=True)(torch.from_numpy(data.observations_at(np.arange(3, 40))))
    assert scaled.abs().max() == 0


def test_the_scale_reads_nothing_but_the_data() -> None:
    data = frames(moving=30)
    before = data.digest
    image_scale(data, standardize=True)
    assert make_dataset_again(data) == before


def make_dataset_again(data: TrajectoryDataset) -> str:
    return data.select([0]).digest


def test_images_are_stacks_of_84_by_84_bytes() -> None:
    assert is_image(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8))
    assert not is_image(gym.spaces.Box(0, 1, (4, 84, 84), np.float32))
    assert not is_image(gym.spaces.Box(0, 255, (84, 84, 3), np.uint8))
