"""What the package d4rl itself says, read without importing it: its import wants mujoco-py's binary and gym."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.robots import ROBOTS
from dtbench.errors import InvalidDataset


@dataclass(frozen=True, slots=True)
class Infos:
    """d4rl/infos.py of the installed package."""

    version: str
    low: Mapping[str, float]  # REF_MIN_SCORE
    high: Mapping[str, float]  # REF_MAX_SCORE
    urls: Mapping[str, str]  # DATASET_URLS


def installed_infos() -> Infos | None:
    """What the installed d4rl says, or None where there is none; raise InvalidDataset where it cannot be read."""
    try:
        package = distribution("d4rl")
    except PackageNotFoundError:
        return None
    path = Path(str(package.locate_file("d4rl/infos.py")))
    spec = importlib.util.spec_from_file_location("dtbench_d4rl_infos", path)
    try:
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return Infos(package.version, module.REF_MIN_SCORE, module.REF_MAX_SCORE, module.DATASET_URLS)
    except Exception as error:  # another package's code: whatever it raises, the remedy is the same
        raise InvalidDataset(f"{path} of d4rl {package.version} cannot be read: {error}. Reinstall d4rl.") from error


def disagreements(infos: Infos) -> list[str]:
    """Where our reference scores and addresses differ from the package's, one line each."""
    found = []
    for name in files.names():
        robot = ROBOTS[name.partition("-")[0]]
        ours = (*robot.reference, files.url(name))
        theirs = (infos.low.get(name), infos.high.get(name), infos.urls.get(name))
        if ours != theirs:
            found.append(f"{name}: dtbench has {ours}, d4rl {infos.version} has {theirs}")
    return found
