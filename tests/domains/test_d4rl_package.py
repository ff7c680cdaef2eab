"""Our copy of D4RL's constants against the package itself, where the extra dtbench[d4rl] is installed."""

import sys

import pytest

from dtbench.domains.d4rl import files, verification
from dtbench.errors import UnknownName


@pytest.fixture
def package() -> verification.Infos:
    found = verification.installed_infos()
    if found is None:
        pytest.skip("the package d4rl is not installed: pip install 'dtbench[d4rl]'")
    return found


def test_reference_scores_and_urls_are_the_packages_own(package: verification.Infos) -> None:
    assert verification.disagreements(package) == []
    assert {name for name in package.urls if name in files.names()} == set(files.names())


def test_reading_the_package_imports_neither_it_nor_gym(package: verification.Infos) -> None:
    assert not {"d4rl", "gym", "mujoco_py"} & set(sys.modules)
    assert package.version


def test_a_difference_is_named() -> None:
    made = verification.Infos("9", dict.fromkeys(files.names(), 0.0), dict.fromkeys(files.names(), 1.0), {})
    said = verification.disagreements(made)
    assert len(said) == len(files.names())
    assert "d4rl 9 has (0.0, 1.0, None)" in said[0]


def test_file_names_have_underscores_as_d4rls_do() -> None:
    assert files.file_name("hopper-medium-replay-v2") == "hopper_medium_replay-v2.hdf5"
    assert files.url("walker2d-medium-v2").endswith("/gym_mujoco_v2/walker2d_medium-v2.hdf5")
    with pytest.raises(UnknownName, match="hopper-medium-v2"):
        files.file_name("hopper-medium-v0")


def test_every_file_has_known_returns() -> None:
    known = {name: files.known_statistics(name) for name in files.names()}
    assert all(said is not None and said.return_mean is not None for said in known.values())
    hopper = known["hopper-medium-v2"]
    assert hopper == files.KnownStatistics(2186, 1422.0562, 378.9537, 315.868, 3222.3606)
