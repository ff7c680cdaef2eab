"""dtbench: does return-conditioned sequence modelling match TD learning for offline RL?"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _public_names() -> dict[str, tuple[str, str]]:
    """Return module and name there of each public name, as `__init__.pyi` lists them."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (str(node.module), alias.name) for node in imports for alias in node.names}


# Looked up at first use: `dtbench --help` must not wait for torch.
_PUBLIC = _public_names()
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dtbench' has no attribute {name!r}")
    module, original = _PUBLIC[name]
    if module == "dtbench":
        return import_module(f"dtbench.{original}")
    return getattr(import_module(module), original)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
