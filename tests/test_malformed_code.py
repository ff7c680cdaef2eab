"""Files are never unpickled, and what they say is never run: read from the code itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "dtbench").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")])
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "read_pickle",
    "to_pickle",
    "unsafe_load",
    "full_load",
    "load_all",
    "system",
    "popen",
    "extractall",
    "unpack_archive",
}
REQUIRED = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}


def calls_in(text: str) -> Iterator[str]:
    """What a module does that may run what a file says, one line each."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"line {node.lineno}: imports {name}" for name in names if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            yield from _wrong_call(node)


def _wrong_call(node: ast.Call) -> Iterator[str]:
    where = f"line {node.lineno}:"
    if isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f"{where} {node.func.id}"
    if not isinstance(node.func, ast.Attribute):
        return
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if node.func.attr in METHODS:
        yield f"{where} {node.func.attr}"
    if (owner, node.func.attr) == ("yaml", "load"):
        yield f"{where} yaml.load"
    if (owner, node.func.attr) in REQUIRED:
        name, wanted = REQUIRED[owner, node.func.attr]
        if not any(
            k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is wanted for k in node.keywords
        ):
            yield f"{where} {owner}.{node.func.attr} without {name}={wanted}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_runs_nothing_that_a_file_says(path: Path) -> None:
    assert list(calls_in(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "eval(text)",
        "pd.read_pickle(path)",
        "archive.extractall(folder)",
    ],
)
def test_each_of_these_would_be_found(text: str) -> None:
    assert list(calls_in(text))
