"""`dtbench doctor`: what is installed, what is missing, and how to mend it."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

CORE = ("torch", "ray", "gymnasium", "numpy", "pandas", "pyarrow", "matplotlib", "pydantic", "typer")


def examine() -> bool:
    """Print one line a check; True when everything that dtbench needs is there."""
    checks: list[Callable[[], tuple[bool, str]]] = [_python, _packages, _devices, _data_folder, _plugins]
    fine = True
    for check in checks:
        passed, text = check()
        fine = fine and passed
        print(f"{'ok  ' if passed else 'FAIL'} {text}")
    return fine


def _python() -> tuple[bool, str]:
    fine = sys.version_info[:2] >= (3, 11)
    return fine, f"python {platform.python_version()}" + ("" if fine else ": dtbench needs 3.11 or newer")


def _packages() -> tuple[bool, str]:
    versions, missing = [], []
    for name in CORE:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    mend = f"; missing: {', '.join(missing)}. Run pip install dtbench again" if missing else ""
    return not missing, ", ".join(versions) + mend


def _devices() -> tuple[bool, str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return True, f"{os.cpu_count()} processor cores; GPUs: {', '.join(gpus) or 'none, trials run on the processor'}"


def _data_folder() -> tuple[bool, str]:
    from dtbench.data import cache

    folder = cache.root()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    writable = os.access(existing, os.W_OK)
    mend = "" if writable else ": not writable. Set DTBENCH_DATA to a folder of yours"
    return writable, f"datasets in {folder}, {free:.0f} GiB free{mend}"


def _plugins() -> tuple[bool, str]:
    from dtbench import registry
    from dtbench.errors import DtbenchError

    broken = []
    names = registry.algorithm_names()
    for name in names:
        try:
            registry.algorithm_class(name)
        except DtbenchError as error:
            broken.append(str(error))
    from dtbench.suite.loading import suite_names

    text = f"algorithms: {', '.join(names) or 'none'}; suites: {', '.join(suite_names()) or 'none'}"
    if not names or not suite_names():
        text += f". Install the package: pip install -e {Path(__file__).resolve().parents[2]}"
        return False, text
    return not broken, text + ("; " + "; ".join(broken) if broken else "")
