"""The identity of a gymnasium environment: its source, its arguments and gymnasium's version."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import gymnasium as gym

from dtbench.foreign import files_of_modules


def environment_digest(env: gym.Env[Any, Any]) -> str:
    """Return a hash of all that judges: an edited module, another version or other arguments give other returns."""
    spec = env.spec
    about = [gym.__version__, spec and spec.id, spec and spec.kwargs, spec and spec.max_episode_steps]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=_plain).encode())
    for name, path in sorted(files_of_modules(_modules(env)).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _modules(env: gym.Env[Any, Any]) -> Iterator[str]:
    """Yield the modules of the environment's class, of its bases and wrappers, and of what makes it."""
    point = env.spec.entry_point if env.spec else None
    yield point.partition(":")[0] if isinstance(point, str) else getattr(point, "__module__", "")
    layer = env
    while True:
        yield from (kind.__module__ for kind in type(layer).__mro__)
        if not isinstance(layer, gym.Wrapper):
            return
        layer = layer.env


def _plain(value: Any) -> Any:
    """Return a value for JSON that does not change from process to process."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return getattr(value, "__qualname__", None) or type(value).__qualname__
