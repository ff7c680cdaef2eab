"""Sizes that nobody can mean, and files that declare more than they hold: refused at once, in one line."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from dtbench import registry
from dtbench.data import hdf5
from dtbench.errors import InvalidDataset, InvalidSuite, InvalidValue
from dtbench.ledger import tables
from dtbench.suite import planning
from dtbench.suite.planning import check_fit, load_suite, trial_specs


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("dt", {"num_layers": 100_000}),
        ("bc", {"batch_size": 100_000_000}),
        ("cql", {"hidden_size": 1_000_000}),
        ("dt", {"context": 10_000_000}),
        ("dt", {"num_heads": 100_000, "hidden_size": 100_000}),
        ("rllib_bc", {"fcnet_hiddens": (256, 10_000_000)}),
    ],
)
def test_hyperparameters_that_nobody_means_are_refused(algorithm: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="exceeds the maximum of"):
        registry.make_algorithm(algorithm, changes)


def test_a_network_that_fits_no_memory_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["DT.hidden_size=60000", "DT.num_layers=900"]
    specs = trial_specs(load_suite("key-to-door", preset="smoke", overrides=overrides))
    monkeypatch.setattr(planning, "open_trial", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(InvalidValue, match=r"hidden_size 60000 and num_layers 900 need .* GiB"):
        check_fit(specs)


@pytest.mark.parametrize("target", ["1e308", "-1e308", "1e31"])
def test_targets_that_nobody_means_are_refused(target: str) -> None:
    with pytest.raises(InvalidSuite, match=r"targets.*less than|targets.*greater than"):
        load_suite("key-to-door", overrides=[f"evaluation.targets=[{target}]"])


def test_a_table_that_declares_more_than_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"step": np.zeros(1_000_000, int), "score": np.zeros(1_000_000)}).to_parquet(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    assert len(tables.read_table(tmp_path / "a.parquet")) == 1_000_000
    monkeypatch.setattr(tables, "free_memory", lambda: 10_000_000)
    with pytest.raises(ValueError, match="declares 1000000 rows"):
        tables.read_table(tmp_path / "a.parquet")


def minari_like(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key in ("observations", "rewards"):
            file[f"episode_0/{key}"] = np.zeros(100)
        for key, values in arrays.items():
            file[f"episode_1/{key}"] = values
    return path


def test_contents_are_added_up_before_any_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = minari_like(tmp_path / "a.hdf5", observations=np.zeros(100))
    monkeypatch.setattr(hdf5, "free_memory", lambda: 2000)
    hdf5.check_contents(path)
    with pytest.raises(InvalidDataset, match="2400 bytes of memory, and 2000 are free"):
        hdf5.check_contents(path, ("observations", "rewards"))


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("other.hdf5", "/secret"), h5py.SoftLink("/episode_0/rewards")], ids=["external", "soft"]
)
def test_links_below_any_group_are_refused(tmp_path: Path, link: Any) -> None:
    minari_like(tmp_path / "other.hdf5")
    with pytest.raises(InvalidDataset, match="'episode_1/rewards' is a link"):
        hdf5.check_contents(minari_like(tmp_path / "a.hdf5", rewards=link))


def test_an_array_that_declares_terabytes_is_refused(tmp_path: Path) -> None:
    path = minari_like(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file.create_dataset("episode_1/infos/text", (10**6,), "S100000", chunks=(100,), compression="gzip")
    with pytest.raises(InvalidDataset, match="'episode_1/infos/text' declares 100000000000 bytes"):
        hdf5.check_contents(path)
