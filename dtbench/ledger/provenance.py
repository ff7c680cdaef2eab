"""Provenance of a result: code, versions, machine, data."""

import contextlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dtbench.data.dataset import TrajectoryDataset, statistics_card

PACKAGES = ("dtbench", "torch", "numpy", "gymnasium", "ray", "pandas", "pyarrow")


def provenance(
    task: Mapping[str, Any], dataset: TrajectoryDataset, device: torch.device, started: str
) -> dict[str, Any]:
    """Return the provenance of a trial that started at `started` (UTC, ISO 8601); `task` is its `Task.facts()`."""
    return {
        "started": started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
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


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed ones of these packages."""
    installed = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def _commit() -> str | None:
    """Return the commit of dtbench's checkout, with `+` where it was changed; None outside of one."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        describe = [*git, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        output = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.strip()
