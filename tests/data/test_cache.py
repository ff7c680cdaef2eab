import json
from pathlib import Path

import numpy as np
import pytest

from dtbench.data import cache
from dtbench.errors import InvalidDataset, MissingDataset
from tests.support.episodes import episodes


def test_a_stored_dataset_comes_back_memory_mapped_and_whole(tmp_path: Path) -> None:
    data = episodes([2, 3], [1, 2, 3, 4, 5], [True, False])
    cache.save(data, tmp_path / "toy")
    loaded = cache.load(tmp_path / "toy", verify=True)
    assert isinstance(loaded.observations, np.memmap)
    assert loaded.digest == data.digest
    assert loaded.returns.tolist() == data.returns.tolist()
    assert loaded.action_space == data.action_space


def test_what_is_stored_is_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return episodes([1], [0], [True])

    assert cache.open_or_make("toy", make).digest == cache.open_or_make("toy", make).digest
    assert made == [1]


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    cache.save(episodes([2], [1, 2], [True]), tmp_path / "toy")
    np.save(tmp_path / "toy" / "rewards.npy", np.array([1, 3], np.float32))
    with pytest.raises(InvalidDataset, match="digest"):
        cache.load(tmp_path / "toy", verify=True)


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 99}'])
def test_damaged_metadata_says_what_to_do(tmp_path: Path, damage: str) -> None:
    cache.save(episodes([2], [1, 2], [True]), tmp_path / "toy")
    (tmp_path / "toy" / "meta.json").write_text(damage)
    with pytest.raises(InvalidDataset, match="Delete that directory"):
        cache.load(tmp_path / "toy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    cache.save(episodes([2], [1, 2], [True]), tmp_path / "toy")
    np.save(tmp_path / "toy" / "rewards.npy", np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(InvalidDataset):
        cache.load(tmp_path / "toy")


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataset, match=str(tmp_path)):
        cache.load(tmp_path / "nothing")


def test_metadata_is_plain_json(tmp_path: Path) -> None:
    cache.save(episodes([2], [1, 2], [True]), tmp_path / "toy")
    meta = json.loads((tmp_path / "toy" / "meta.json").read_text())
    assert meta["card"]["episodes"] == 1
