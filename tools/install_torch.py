"""Install the pinned torch: the CPU build where there is no GPU, whatever the index offers first."""

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path


def main(constraints: str) -> None:
    """Install the version that `constraints` pins, unless it is there already."""
    match = re.search(r"^torch==(\S+)$", Path(constraints).read_text(), re.MULTILINE)
    assert match, f"{constraints} does not pin torch"
    wanted = f"torch=={match[1]}"
    if installed() == match[1]:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    needs_care = platform.system() == "Linux" and shutil.which("nvidia-smi") is None
    if needs_care and "+cpu" not in offered(pip, wanted):
        subprocess.run([*pip, "uv"], check=False)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--torch-backend", "cpu"]
        if subprocess.run([*uv, wanted], check=False).returncode == 0:
            return
        print("no CPU build of torch could be fetched; taking the default one, which is large", file=sys.stderr)
    subprocess.run([*pip, wanted], check=True)


def installed() -> str | None:
    """Return the torch that is there, without its local suffix."""
    try:
        return importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def offered(pip: list[str], wanted: str) -> str:
    """Return the version that pip would take; empty where pip is too old to say."""
    command = [*pip, "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return str(json.loads(done.stdout)["install"][0]["metadata"]["version"])
    except (ValueError, LookupError):
        return ""


if __name__ == "__main__":
    main(sys.argv[1])
