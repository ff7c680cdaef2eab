"""Data files of the package: suites, search spaces, published numbers."""

from pathlib import Path
from typing import Literal

from dtbench.errors import UnknownName

Kind = Literal["sweeps", "sweeps/spaces", "published"]

_IN_A_CHECKOUT = {
    "sweeps": Path("sweeps"),
    "sweeps/spaces": Path("sweeps/spaces"),
    "published": Path("results/published"),
}


def find(kind: Kind, name: str) -> Path:
    """Return the path of a file: in the working directory, else in the package; raise UnknownName for others."""
    for folder in _folders(kind):
        if _is_relative(name) and (folder / name).is_file():
            return folder / name
    raise UnknownName(f"{kind} file", name, names(kind))


def names(kind: Kind) -> list[str]:
    """Return the names of all files of this kind, in the working directory and in the package."""
    return sorted({path.name for folder in _folders(kind) for path in folder.glob("*") if path.is_file()})


def _is_relative(name: str) -> bool:
    """Return whether a name, perhaps from a suite's file, stays inside its directory."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name and len(name) < 255


def _folders(kind: Kind) -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    packaged = package / "shipped_files" / kind  # where the wheel puts them
    checkout = package.parent / _IN_A_CHECKOUT[kind]  # where an editable install finds them
    return [Path.cwd() / _IN_A_CHECKOUT[kind], packaged if packaged.is_dir() else checkout]
