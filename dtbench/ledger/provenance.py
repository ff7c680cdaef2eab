"""Where a result comes from: code, versions, machine, data."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dtbench.data.dataset import TrajectoryDataset, statistics_card

PACKAGES = ("dtbench", "torch", "numpy", "gymnasium", "ray", "pandas", "pyarrow")


def provenance(
    task: Mapping[str, Any], dataset: TrajectoryDataset, device: torch.device, started: str
) -> dict[str, Any]:
    """What is written beside a result of a trial of this `Task.facts()` that began at `started` (UTC, ISO 8601)."""
    return {
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "task": dict(task),
        "dataset": {
            "source": dataset.info.get("source", "unknown"),
            "digest": dataset.digest,
            "info": dict(dataset.info),
            "card": statistics_card(dataset),
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the checkout that dtbench runs from, with `+` where it was changed; None outside of one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        inside = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and inside.returncode == 0 else None
