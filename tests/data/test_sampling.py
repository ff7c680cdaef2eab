import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dtbench import TransitionSampler, WindowSampler
from dtbench.data import generator
from dtbench.data.sampling import Anchor, Windows, balanced_weights
from tests.support.episodes import episodes

CPU = torch.device("cpu")


def windows(lengths: list[int], context: int, anchor: Anchor, batch: int = 64) -> Windows:
    data = episodes(lengths, [1.0] * sum(lengths), [True] * len(lengths))
    sampler = WindowSampler(data, context=context, batch_size=batch, rng=generator(0), device=CPU, anchor=anchor)
    return sampler.sample()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from(["start", "end", "inside"]),
)
def test_no_window_crosses_an_episode(lengths: list[int], context: int, anchor: Anchor) -> None:
    batch = windows(lengths, context, anchor)
    episode_of_step = np.repeat(np.arange(len(lengths)), lengths)
    for observations, mask in zip(batch.observations[..., 0].long(), batch.mask, strict=True):
        steps = observations[mask].numpy()
        assert len(steps) >= 1
        assert (np.diff(steps) == 1).all()
        assert len(set(episode_of_step[steps])) == 1


def test_windows_are_padded_on_the_left_with_zeros() -> None:
    batch = windows([2], 4, "inside", batch=1)
    assert batch.mask.tolist() == [[False, False, True, True]]
    assert batch.observations[0, :2].abs().sum() == 0
    assert batch.returns_to_go.tolist() == [[0, 0, 2, 1]]
    assert batch.timesteps.tolist() == [[0, 0, 0, 1]]
    assert batch.terminals.tolist() == [[False, False, False, True]]


def test_anchors_place_the_drawn_step_first_last_or_in_a_full_window() -> None:
    lengths = {anchor: set(windows([5], 3, anchor, 200).mask.sum(1).tolist()) for anchor in ("start", "end", "inside")}
    assert lengths == {"start": {1, 2, 3}, "end": {1, 2, 3}, "inside": {3}}
    assert windows([5], 3, "start", 200).timesteps.max() == 4
    first_steps = {
        int(t[m][0]) for w in [windows([5], 3, "inside", 200)] for t, m in zip(w.timesteps, w.mask, strict=True)
    }
    assert first_steps == {0, 1, 2}


def test_long_episodes_are_drawn_as_often_as_their_timesteps() -> None:
    batch = windows([9, 1], 1, "start", batch=20_000)
    short = (batch.observations[:, 0, 0] == 9).float().mean()
    assert short == pytest.approx(0.1, abs=0.01)


def test_a_cut_off_step_is_no_transition_and_a_terminal_one_has_no_successor() -> None:
    data = episodes([2, 3], [1, 2, 3, 4, 5], [True, False])
    batch = TransitionSampler(data, batch_size=500, rng=generator(0), device=CPU).sample()
    seen = batch.observations[:, 0].long()
    assert set(seen.tolist()) == {0, 1, 2, 3}  # step 4 was cut off: what followed is unknown
    assert (batch.terminals == (seen == 1)).all()
    assert (batch.next_observations[seen == 1] == 0).all()
    assert (batch.next_observations[seen == 2] == 3).all()


def test_equal_streams_draw_equal_batches() -> None:
    first, second = (windows([4, 5], 3, "start") for _ in range(2))
    assert torch.equal(first.observations, second.observations)


def test_balanced_weights_draw_rare_returns_as_often_as_common_ones() -> None:
    data = episodes([2, 2, 2, 4], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [True] * 4)
    weights = balanced_weights(data)
    assert weights[:6].sum() == pytest.approx(1)  # three episodes that return 0
    assert weights[6:].sum() == pytest.approx(1)  # one that returns 1
    sampler = WindowSampler(data, context=1, batch_size=20_000, rng=generator(0), device=CPU, weights=weights)
    drawn = sampler.sample().observations[:, 0, 0].long()
    assert (drawn >= 6).float().mean() == pytest.approx(0.5, abs=0.02)
    assert set(drawn.tolist()) == set(range(10))


def test_balanced_weights_of_equal_returns_are_equal() -> None:
    assert len(set(balanced_weights(episodes([2, 3], [1, 0, 1, 0, 0], [True, True])))) == 1
