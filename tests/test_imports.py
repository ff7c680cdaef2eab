"""The import directions of ARCHITECTURE.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import from its own layer and from those above it.
LAYERS = [
    {"errors", "shipped", "processes", "stopping", "plain_yaml"},
    {"spec", "suite_document", "overrides", "randomness", "data"},
    {"algorithm", "layers"},
    {"evaluation", "decision_transformer"},
    {"task"},
    {"domains", "registry"},
    {"ledger", "ledger_shapes"},
    {"remote", "lock"},
    {"mirror", "trial_folders"},
    {"storage"},
    {"trial", "provenance", "suite", "suite_settings", "search_space", "resources"},
    {"search", "cluster"},
    {"worker"},
    {"testing", "analysis", "execution", "calibration"},
    {"proposals", "tuning", "tuning_ray", "tuned_suite"},
    {"terminal", "progress", "plans", "outcomes", "listings", "doctor", "merge", "status"},
    {"inventory"},
    {"cli", "cli_data", "cli_ledger", "cli_report", "cli_tune"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "ray": {
        "dtbench/cluster.py",
        "dtbench/execution.py",
        "dtbench/worker.py",
        "dtbench/tuning_ray.py",
        "dtbench/proposals.py",
        "baselines/rllib_module.py",
    },
    "optuna": {"dtbench/proposals.py"},
    "h5py": {"dtbench/data/hdf5.py", "dtbench/domains/d4rl/replay.py", "dtbench/domains/d4rl/rerecorded.py"},
    "matplotlib": {"dtbench/analysis/data_card.py", "dtbench/analysis/figures/*.py"},
    "minari": {"dtbench/data/minari_sets.py"},
    "rich": {f"dtbench/{name}.py" for name in ("terminal", "progress", "plans", "outcomes", "listings", "inventory")},
    "ale_py": {"dtbench/domains/atari/console.py"},
    "stable_baselines3": {"dtbench/domains/d4rl/training.py", "dtbench/domains/atari/training.py"},
    "typer": {"dtbench/cli*.py"},
    "playwright": set(),
    "d4rl": set(),
    "gym": set(),
    "transformers": set(),
    "d3rlpy": set(),
    "rliable": set(),
}
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
    import dtbench

    for name in imported(path):
        if name.startswith("dtbench"):
            assert name.count(".") == 1, f"{path} imports {name}"
            assert name.split(".")[1] in dtbench.__all__, f"{path} imports {name}"


def loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in output.splitlines()[-1].split()}


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "ray", "pandas", "pyarrow", "numpy", "matplotlib", "gymnasium", "pydantic"}
    assert not loaded_by("import dtbench.cli") & heavy


def test_reporting_loads_neither_torch_nor_ray() -> None:
    assert not loaded_by("import dtbench.analysis.report, dtbench.analysis.scores") & set(PURE)


def test_public_names_exist() -> None:
    import dtbench

    for name in dtbench.__all__:
        assert getattr(dtbench, name) is not None


def test_the_readmes_tree_names_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    for package in ("dtbench", "baselines"):
        for path in modules(package):
            if path.name != "__init__.py":
                assert str(path.relative_to(ROOT / package)) in readme, path
