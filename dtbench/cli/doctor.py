"""`dtbench doctor`: check the installation and print how to repair it."""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path

CORE = ("torch", "ray", "gymnasium", "numpy", "pandas", "pyarrow", "matplotlib", "pydantic", "typer")


def examine(*, as_json: bool = False) -> bool:
    """Print one line a check, or all as JSON; return whether all passed."""
    checks = (_python, _packages, _devices, _data_directory, _plugins, _modules)
    results = [check() for check in checks]
    if as_json:
        named = zip(checks, results, strict=True)
        facts = [{"check": check.__name__[1:], "passed": ok, "text": text} for check, (ok, text) in named]
        print(json.dumps(facts, indent=2))
        return all(passed for passed, _ in results)
    for passed, text in results:
        print(f"{'ok  ' if passed else 'FAIL'} {text}")
    return all(passed for passed, _ in results)


def _python() -> tuple[bool, str]:
    passed = sys.version_info[:2] >= (3, 11)
    return passed, f"python {platform.python_version()}" + ("" if passed else ": dtbench needs 3.11 or newer")


def _packages() -> tuple[bool, str]:
    versions, missing = [], []
    for name in CORE:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    advice = f"; missing: {', '.join(missing)}. Run pip install dtbench again" if missing else ""
    return not missing, ", ".join(versions) + advice


def _devices() -> tuple[bool, str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return True, f"{os.cpu_count()} CPU cores; GPUs: {', '.join(gpus) or 'none, trials run on the CPU'}"


def _data_directory() -> tuple[bool, str]:
    from dtbench.data import cache

    directory = cache.root()
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    writable = os.access(existing, os.W_OK)
    advice = "" if writable else ": not writable. Set DTBENCH_DATA to another directory"
    return writable, f"datasets in {directory}, {free:.0f} GiB free{advice}"


def _plugins() -> tuple[bool, str]:
    from dtbench import registry
    from dtbench.errors import DtbenchError
    from dtbench.suite.loading import suite_names

    broken = []
    names = registry.algorithm_names()
    for name in names:
        try:
            registry.algorithm_class(name)
        except DtbenchError as error:
            broken.append(str(error))
    text = f"algorithms: {', '.join(names) or 'none'}; suites: {', '.join(suite_names()) or 'none'}"
    if not names or not suite_names():
        text += f". Install the package: pip install -e {Path(__file__).resolve().parents[2]}"
        return False, text
    return not broken, text + ("; " + "; ".join(broken) if broken else "")


def _modules() -> tuple[bool, str]:
    from dtbench import foreign
    from dtbench.errors import DtbenchError

    try:
        foreign.add_imports(foreign.imports())
    except DtbenchError as error:
        return False, f"modules: {error}"
    return True, f"modules of {foreign.IMPORTS}: {', '.join(foreign.imports()) or 'none'}"
