"""Every test has a store of its own, and nothing a test starts talks to the network."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DTBENCH_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole session: random walks are made once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _own_store(data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(data_folder))
    monkeypatch.chdir(tmp_path)
