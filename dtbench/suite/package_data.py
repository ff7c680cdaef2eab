"""Files that travel with dtbench: suites, search spaces, published numbers."""

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
    """The file `name` of this kind: the working directory's own before the packaged one.

    Raises UnknownName, with the nearest names, where neither exists.
    """
    for folder in _folders(kind):
        if _lies_below(name) and (folder / name).is_file():
            return folder / name
    raise UnknownName(f"{kind} file", name, names(kind))


def names(kind: Kind) -> list[str]:
    """All files of this kind, the working directory's and the packaged ones."""
    return sorted({path.name for folder in _folders(kind) for path in folder.glob("*") if path.is_file()})


def _lies_below(name: str) -> bool:
    """Whether a name, which may come from a suite's file, stays inside of the folder that it is looked for in."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name and len(name) < 255


def _folders(kind: Kind) -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    packaged = package / "shipped_files" / kind  # where the wheel puts them
    checkout = package.parent / _IN_A_CHECKOUT[kind]  # where an editable install finds them
    return [Path.cwd() / _IN_A_CHECKOUT[kind], packaged if packaged.is_dir() else checkout]
