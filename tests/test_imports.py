"""The import directions of ARCHITECTURE.md: eight lines, and no circle between files or between folders."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What stands in a line may import from that line and from those above it.
LAYERS = (
    "errors meanings ranges foreign data envs",
    "ledger algorithm nn",
    "evaluation convergence decision_transformer tracking",
    "task registry",
    "suite trial testing",
    "execution tuning analysis",
    "domains",
    "cli",
)
LAYER_OF = {name: number for number, line in enumerate(LAYERS) for name in line.split()}
ONLY_IN = {
    "ray": {
        "dtbench/execution/cluster.py",
        "dtbench/execution/ray_driver.py",
        "dtbench/execution/ray_worker.py",
        "dtbench/tuning/*.py",
        "baselines/rllib/module.py",
    },
    "optuna": {"dtbench/tuning/ray_tune.py"},
    "h5py": {
        "dtbench/data/d4rl_hdf5.py",
        "dtbench/data/hdf5.py",
        "dtbench/domains/d4rl/replay.py",
        "dtbench/domains/d4rl/rerecorded.py",
    },
    "matplotlib": {
        "dtbench/analysis/figures/*.py",
        "dtbench/domains/graph/figures.py",
        "dtbench/domains/key_to_door/report.py",
    },
    "minari": {"dtbench/data/minari.py", "dtbench/data/minari_export.py"},
    "rich": {"dtbench/cli/*.py", "dtbench/execution/training.py"},
    "ale_py": {"dtbench/domains/atari/emulator.py"},
    "stable_baselines3": set(),
    "typer": {"dtbench/cli/*.py"},
    "playwright": set(),
    "d4rl": set(),
    "gym": set(),
    "safetensors": {"dtbench/decision_transformer/huggingface.py"},
    "tensorboardX": {"dtbench/tracking/tensorboard.py"},
    "wandb": {"dtbench/tracking/wandb.py"},
    "mlflow": {"dtbench/tracking/mlflow.py"},
    "transformers": set(),
    "d3rlpy": set(),
    "rliable": set(),
}
STARTS_RAY = {("process.py", "dtbench.execution.cluster.ray_started")}  # RLlib has a Ray of its own
PUBLIC = ("dtbench", "dtbench.data", "dtbench.decision_transformer", "dtbench.nn", "dtbench.testing")
PURE = ("torch", "ray")  # what analysis must never load


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    return LAYER_OF.get(module.split(".")[1]) if module.count(".") else None


@pytest.mark.parametrize("path", modules("dtbench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_imports_from_a_layer_below(path: Path) -> None:
    own = path.relative_to(ROOT / "dtbench").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported(path):
        if name.startswith("dtbench.") and (other := layer(name)) is not None:
            assert other <= LAYER_OF[own], f"{path} imports {name}"


def test_every_module_has_a_layer() -> None:
    found = {path.relative_to(ROOT / "dtbench").parts[0].removesuffix(".py") for path in modules("dtbench")}
    assert found - {"__init__", "shipped_files"} == set(LAYER_OF)


def test_no_circle_between_files_or_between_folders() -> None:
    name_of = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("dtbench")}
    names = set(name_of.values())
    for folder in sorted({name.rpartition(".")[0] for name in names}):
        below: dict[str, set[str]] = {}  # within this folder: who imports whom, a folder below counting as one
        for path, name in name_of.items():
            if not name.startswith(f"{folder}.") or name == "dtbench.__init__":
                continue
            for target in imported(path):
                module = next((n for n in (target, target.rpartition(".")[0]) if n in names), f"{target}.__init__")
                if module.startswith(f"{folder}.") and (own := child(name, folder)) != (
                    other := child(module, folder)
                ):
                    below.setdefault(own, set()).add(other)
        tuple(TopologicalSorter(below).static_order())  # raises CycleError, with the circle


def child(name: str, folder: str) -> str:
    return name.removeprefix(f"{folder}.").split(".")[0]


@pytest.mark.parametrize("path", [*modules("dtbench"), *modules("baselines")], ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        if top in ONLY_IN:
            assert any(path.match(allowed) for allowed in ONLY_IN[top]), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules("dtbench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_harness_knows_no_baseline(path: Path) -> None:
    assert not any(name.split(".")[0] == "baselines" for name in imported(path))


@pytest.mark.parametrize("path", modules("baselines"), ids=lambda p: str(p.relative_to(ROOT)))
def test_baselines_use_public_names_only(path: Path) -> None:
    for name in imported(path):
        if name.startswith("dtbench"):
            module, _, imported_name = name.rpartition(".")
            if (path.name, name) in STARTS_RAY:
                continue
            assert module in PUBLIC, f"{path} imports {name}"
            assert imported_name in import_module(module).__all__, f"{path} imports {name}"


def loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in output.splitlines()[-1].split()}


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "ray", "pandas", "pyarrow", "numpy", "matplotlib", "gymnasium", "pydantic"}
    assert not loaded_by("import dtbench.cli.run") & heavy


def test_reporting_loads_neither_torch_nor_ray() -> None:
    assert not loaded_by("import dtbench.analysis.page.build, dtbench.analysis.results") & set(PURE)


@pytest.mark.parametrize("path", sorted((ROOT / "dtbench/domains").glob("*/report.py")), ids=lambda p: p.parent.name)
def test_a_domains_report_section_loads_neither_torch_nor_ray(path: Path) -> None:
    assert not loaded_by(f"import dtbench.domains.{path.parent.name}.report") & set(PURE)


def test_public_names_exist() -> None:
    import dtbench

    for name in dtbench.__all__:
        assert getattr(dtbench, name) is not None
