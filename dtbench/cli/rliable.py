"""A suite's final scores for rliable: an array of seeds x tasks for each contender."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.results import SuiteResults
from dtbench.analysis.superseded import sentences
from dtbench.errors import InvalidValue, NothingToReport
from dtbench.ledger.store import write_bytes
from dtbench.ledger.trial_spec import TrialState

TASKS = "tasks"  # the array of names in the file: no contender may be called so
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal arrays give equal bytes


def check_path(path: Path, *, force: bool = False) -> None:
    """Raise InvalidValue where the ending is wrong or a file exists that would be lost."""
    if path.suffix != ".npz":
        raise InvalidValue(f"{path}: scores for rliable are written to a file that ends in .npz.")
    if path.exists() and not force:
        raise InvalidValue(f"{path} exists. Use --force to overwrite it, or --out to write another file.")


def write_rliable(results: SuiteResults, path: Path) -> list[str]:
    """Write an array of final scores for each contender, [seeds, tasks], and the names of the `tasks`; no pickles.

    rliable knows no holes: a task that nobody ran is left out, and so is a seed that lacks a score on another task,
    and a contender without a whole seed. Return a sentence for each thing left out. Raises NothingToReport where
    nothing is left, InvalidValue for a contender called `tasks` and for a path that cannot be written.
    """
    matrices, left_out = score_matrices(results)
    if not matrices:
        raise NothingToReport(f"no contender of {results.name} has a seed with a score on every task.")
    if TASKS in matrices:
        raise InvalidValue(f"a contender is called {TASKS!r}, which is the name of the tasks' array: rename it.")
    names = [str(task) for task in next(iter(matrices.values())).columns]
    arrays = {name: own.to_numpy(np.float64) for name, own in matrices.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, npz_bytes({**arrays, TASKS: np.array(names)}))
    except OSError as error:
        raise InvalidValue(f"cannot write {path}: {error.strerror or error}.") from error
    lost = [trial.spec for trial in results.unfinished if trial.state is TrialState.DIVERGED]
    left_out += sentences(results)
    return [*left_out, *(f"contender {one.contender}, seed {one.seed}: diverged on {one.task}" for one in lost)]


def score_matrices(results: SuiteResults) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return final scores by contender, seeds x tasks without holes, and a sentence for each thing left out."""
    finals = final_rows(results).dropna(subset="score")
    ran = list(dict.fromkeys(finals["task"]))
    planned = results.suite.get("tasks") or ran
    tasks = [task for task in planned if task in ran]
    left_out = [f"task {task}: no finished trial has a score on it." for task in planned if task not in ran]
    matrices = {}
    for name, own in finals.groupby("contender", sort=False):
        pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=tasks)
        whole = pivot.dropna()
        lacking = {str(seed): ", ".join(row.index[row.isna()]) for seed, row in pivot.iterrows() if row.isna().any()}
        if whole.empty:
            seed, absent = next(iter(lacking.items()))
            left_out.append(f"contender {name}: no seed has a score on every task; seed {seed} has none on {absent}.")
        else:
            matrices[str(name)] = whole
            left_out += [f"contender {name}, seed {seed} (no {absent})" for seed, absent in lacking.items()]
    return matrices, left_out


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an .npz file; equal arrays give equal bytes, and any text can be a name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.getvalue())
    return content.getvalue()
