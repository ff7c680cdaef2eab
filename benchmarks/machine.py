"""What a measurement was made on: versions and machine."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("dtbench", "torch", "numpy", "gymnasium", "ale-py")


def surroundings() -> dict[str, Any]:
    """Versions, processor, cores and threads, as plain JSON."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cpu_count": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "load_average": [round(load, 1) for load in os.getloadavg()],
        },
    }


def peak_resident() -> int:
    """The peak of this process's resident memory in bytes; `ru_maxrss` would begin with that of the process before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def report(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as JSON, and write it to `out` where that is given."""
    text = json.dumps(result, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")


def _processor() -> str:
    """Its name; Linux tells Python no more than its architecture, or nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
