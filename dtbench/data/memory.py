"""The memory that this process may still take."""

import sys
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Of version 2 and 1 of cgroups: limit, usage, and the part of it that the kernel can drop.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Return the available bytes of the machine, or of its cgroups where they are fewer; no limit where unknown."""
    return min([_machine(), *(room for folder in _cgroups() if (room := _room(folder)) is not None)])


def _machine() -> int:
    kibibytes = _named(PROC / "meminfo", "MemAvailable:")
    return sys.maxsize if kibibytes is None else kibibytes * 1024


def _cgroups() -> Iterator[Path]:
    """Yield the directories of this process's cgroups and of all above them."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        folder = root / name.strip("/")
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
        yield root


def _room(folder: Path) -> int | None:
    """Return the bytes left in a cgroup; None without a limit."""
    for limit_file, usage_file, droppable in _FILES:
        try:
            limit, usage = ((folder / name).read_text().strip() for name in (limit_file, usage_file))
            return max(0, int(limit) - int(usage) + (_named(folder / "memory.stat", droppable) or 0))
        except (OSError, ValueError):  # "max"
            continue
    return None


def _named(path: Path, name: str) -> int | None:
    """Return the number beside a name in a file such as memory.stat."""
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[:1] == [name])
    except (OSError, StopIteration, ValueError, IndexError):
        return None
