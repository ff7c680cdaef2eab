"""Our copy of D4RL's constants, against the package itself where it is installed (`make d4rl`)."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest

from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS
from dtbench.errors import UnknownName


@pytest.fixture
def infos() -> ModuleType:
    """d4rl/infos.py, read without importing the package."""
    try:
        path = distribution("d4rl").locate_file("d4rl/infos.py")
    except PackageNotFoundError:
        pytest.skip("the package d4rl is not installed: make d4rl")
    spec = importlib.util.spec_from_file_location("d4rl_infos", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_scores_and_urls_are_the_packages_own(infos: ModuleType) -> None:
    for name in files.names():
        reference = LOCOMOTION_ENVS[name.partition("-")[0]].reference
        assert reference == (infos.REF_MIN_SCORE[name], infos.REF_MAX_SCORE[name])
        assert files.URL + files.file_name(name) == infos.DATASET_URLS[name]


def test_file_names_have_underscores_as_d4rls_do() -> None:
    assert files.file_name("hopper-medium-replay-v2") == "hopper_medium_replay-v2.hdf5"
    assert files.file_name("walker2d-medium-v2") == "walker2d_medium-v2.hdf5"
    with pytest.raises(UnknownName, match="hopper-medium-v2"):
        files.file_name("hopper-medium-v0")


def test_every_file_has_known_returns() -> None:
    known = {name: files.known_statistics(name) for name in files.names()}
    assert all(statistics is not None and statistics.return_mean is not None for statistics in known.values())
    hopper = known["hopper-medium-v2"]
    assert hopper == files.KnownStatistics(2186, 1422.0562, 378.9537, 315.868, 3222.3606)
