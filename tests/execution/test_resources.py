"""What a trial takes: asked or measured."""

import dataclasses
import os

import pytest
import torch

from dtbench.errors import InvalidValue
from dtbench.execution.resources import check_room, parallel_trials, sized, trials_on_one_gpu
from tests.support.tiny_ledger import spec_of

GIB = 2**30


def test_resources_are_laid_over_those_of_each_trial() -> None:
    spec = spec_of("hill", "DT", 0)
    for text, changes in (
        ("cpu=2,gpu=0.25", {"cpu": 2.0, "gpu": 0.25}),
        (" extra_cpu=1", {"extra_cpu": 1.0}),
        (None, {}),
    ):
        (found,) = sized([spec], text)
        assert found.resources == {**spec.resources, **changes}
        assert found.key == spec.key


@pytest.mark.parametrize(
    "text", ["", "cpu", "cpu=", "cpu=x", "tpu=1", "cpu=1,cpu=2", "gpu=-1", "cpu=auto", "cpu=1e3", ","]
)
def test_what_is_not_a_resource_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"write cpu=2,gpu=0\.25") as caught:
        sized([spec_of("hill", "DT", 0)], text)
    assert "\n" not in str(caught.value)


def test_auto_without_a_gpu_says_what_to_say_instead() -> None:
    with pytest.raises(InvalidValue, match=r"gpu=0\.25"):
        sized([spec_of("hill", "DT", 0)], "gpu=auto")


def test_the_largest_trial_decides_how_many_share_a_gpu() -> None:
    specs = [spec_of("hill", "DT", 0), spec_of("hill", "BC", 0)]
    taken = {"DT": 8 * GIB, "BC": GIB}
    found = sized(specs, "cpu=1,gpu=auto", lambda spec: (taken[spec.contender], 40 * GIB))
    assert {spec.resources["gpu"] for spec in found} == {1 / 4}
    assert [spec.key for spec in found] == [spec.key for spec in specs]


@pytest.mark.parametrize(("taken", "available", "fit"), [(8, 40, 4), (100, 40, 1), (0, 40, 32), (1, 8, 4)])
def test_a_tenth_of_the_gpu_and_every_process_own_needs_are_left_free(taken: int, available: int, fit: int) -> None:
    assert trials_on_one_gpu(taken * GIB, available * GIB) == fit


def test_trials_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert parallel_trials({"cpu": 1, "gpu": 0}) == 9
    assert parallel_trials({"cpu": 2, "gpu": 0}) == 4
    assert parallel_trials({"cpu": 1, "gpu": 0.25}) == 4
    assert parallel_trials({"cpu": 10, "gpu": 0}) == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert parallel_trials({"cpu": 1, "gpu": 0.25}) == 0


def test_a_trial_that_no_processor_here_could_run_is_refused() -> None:
    spec = spec_of("hill", "DT", 0)
    check_room([spec])
    with pytest.raises(InvalidValue, match=r"needs .*100000.*resources\.gpu=0"):
        check_room([dataclasses.replace(spec, resources={"cpu": 100_000.0, "gpu": 0.0})])
