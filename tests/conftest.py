"""Every test has a store of its own, nothing a test starts talks to the network, and what may run side by side does.

Where pytest-xdist runs several processes (`make test`), the tests of a file stay together, but for files whose tests
share nothing that is dear: those are dealt out one by one. All tests that start a Ray are one group: no two Rays run
at once. Long groups go first, so that the processes end together.
"""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # also of the processes that tests start; torch reads it when it is imported

import pytest
import torch

torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DTBENCH_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

DEALT_OUT = (
    "test_baselines",
    "test_benchmarks",
    "test_cli",
    "test_docs",
    "test_examples",
    "test_learning",
    "test_resume",
)
# What takes long: whole reports, a browser, servers, many processes. `make test-extended` runs it, and CI where time
# is left.
EXTENDED = (
    "test_benchmarks",
    "test_cli_report",
    "test_cluster_examples",
    "test_diverged",
    "test_docs",
    "test_examples",
    "test_export",
    "test_figures",
    "test_html",
    "test_malformed_fuzz",
    "test_mixed_report",
    "test_page_in_browser",
    "test_plot",
    "test_report",
    "test_resume",
    "test_rllib",
    "test_search_report",
    "test_search_planning",
    "test_status",
    "test_remote",
)
LONG = ("test_remote", "test_page_in_browser", "test_malformed_fuzz", *DEALT_OUT)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in EXTENDED or item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.extended)
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    if config.getoption("dist", "no") != "no" or os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=_place)


def _group(item: pytest.Item) -> str:
    """The tests that must run in one process after one another; "" for one that may run anywhere."""
    if item.get_closest_marker("ray"):
        return "ray"
    return "" if item.path.stem in DEALT_OUT else item.path.stem


def _place(item: pytest.Item) -> int:
    if item.get_closest_marker("ray"):
        return 0
    return 1 if item.path.stem in LONG else 2


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole session, or for each of its processes: random walks are made once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _own_store(data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(data_folder))
    monkeypatch.chdir(tmp_path)
