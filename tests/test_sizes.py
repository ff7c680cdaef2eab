"""Sizes that nobody can mean, and files that declare more than they hold: refused at once, in one line."""

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtbench import registry
from dtbench.data import hdf5
from dtbench.domains import mlp_policy
from dtbench.domains.mlp_policy import load_mlp, save_mlp
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


def packed_table(path: Path, kind: str) -> Path:
    """A small file whose rows take 100 MB and more."""
    long, zeros = "x" * 1_000_000, pa.array(np.zeros(1000, np.int32))
    columns = {
        "text": pa.DictionaryArray.from_arrays(zeros, [long]),
        "bytes": pa.array([b"x" * 100_000] * 1000, pa.binary()),
        "fixed": pa.array([b"x" * 100_000] * 1000, pa.binary(100_000)),
        "list": pa.array([np.zeros(20_000_000)]),
    }
    pq.write_table(pa.table({"group": columns[kind]}), path, store_schema=False)
    assert path.stat().st_size < 100_000
    return path


@pytest.mark.parametrize("kind", ["text", "bytes", "fixed", "list"])
def test_values_that_are_repeated_count_with_their_length_in_every_row(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed_table(tmp_path / "a.parquet", kind)
    tables.fitting(path)
    monkeypatch.setattr(tables, "free_memory", lambda: 50_000_000)
    with pytest.raises(ValueError, match="bytes, more than fits into memory"):
        tables.read_table(path)


def test_text_below_lists_is_refused_unread(tmp_path: Path) -> None:
    pq.write_table(pa.table({"group": pa.array([["x" * 1_000_000] * 1000])}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"group\.list\.element holds neither numbers nor text"):
        tables.read_table(tmp_path / "a.parquet")


def saved_policy(path: Path) -> Path:
    save_mlp(path, [np.zeros((1000, 1000), np.float32)], [np.zeros(1000, np.float32)], bytes_per_weight=4)
    return path


def test_a_policy_that_unpacks_to_more_than_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_policy(tmp_path / "a.npz")
    assert path.stat().st_size < 10_000
    assert len(load_mlp(path).weights) == 1
    monkeypatch.setattr(mlp_policy, "free_memory", lambda: 1_000_000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InvalidDataset, match=r"a\.npz is not a behaviour policy: it needs 80\d+ bytes of memory"):
        load_mlp(path)


@pytest.mark.parametrize("dtype", ["<f4", "|S100000"])
def test_a_policys_array_that_declares_more_than_it_holds_is_not_read(tmp_path: Path, dtype: str) -> None:
    with zipfile.ZipFile(saved_policy(tmp_path / "a.npz"), "a") as archive, archive.open("other.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(InvalidDataset, match=r"other\.npy declares \d+ bytes and holds"):
        load_mlp(tmp_path / "a.npz")


def test_a_policy_of_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InvalidDataset, match="is not a behaviour policy"):
        load_mlp(tmp_path / "a.npz")


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
