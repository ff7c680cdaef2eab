"""Which process on which machine: written into files that outlive it, so that others can tell whether it is alive."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, number and birth of this process, and when this was asked."""
    return {
        "host": platform.node(),
        "space": _space(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def alive(identity: Mapping[str, Any]) -> bool | None:
    """Whether the process that `this_process` described still runs; None where it is on another machine.

    A number that was given to another process since is told by its birth. No clock is read.
    """
    if identity.get("host") != platform.node() or identity.get("space", "") != _space():
        return None
    try:
        number, born = int(identity["process"]), int(identity.get("born", 0))
    except (KeyError, TypeError, ValueError):
        return False
    if not is_running(number):
        return False
    return not born or _born(number) in (0, born)


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def processors() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _born(process: int) -> int:
    """When the process started, in clock ticks since the machine did; 0 where that cannot be known."""
    try:
        # The name in brackets may hold anything; what follows it is plain. Field 22 is the 20th after it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _space() -> str:
    """What process numbers refer to: this start of the machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
