"""Files that travel with dtbench: suites, published numbers, report templates."""

from pathlib import Path
from typing import Literal

from dtbench.errors import UnknownName

Kind = Literal["sweeps", "published", "report"]

_IN_A_CHECKOUT = {"sweeps": Path("sweeps"), "published": Path("results/published"), "report": Path("report")}


def find(kind: Kind, name: str) -> Path:
    """The file `name` of this kind: the working directory's own before the packaged one.

    Raises UnknownName, with the nearest names, where neither exists.
    """
    for folder in _folders(kind):
        if (folder / name).is_file():
            return folder / name
    raise UnknownName(f"{kind} file", name, names(kind))


def names(kind: Kind) -> list[str]:
    """All files of this kind, the working directory's and the packaged ones."""
    return sorted({path.name for folder in _folders(kind) for path in folder.glob("*") if path.is_file()})


def _folders(kind: Kind) -> list[Path]:
    package = Path(__file__).resolve().parent
    packaged = package / "shipped_files" / kind  # where the wheel puts them
    checkout = package.parent / _IN_A_CHECKOUT[kind]  # where an editable install finds them
    return [Path.cwd() / _IN_A_CHECKOUT[kind], packaged if packaged.is_dir() else checkout]
