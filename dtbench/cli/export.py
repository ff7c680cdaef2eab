"""A suite's results for other programs: the tidy table, every episode, LaTeX, rliable's matrices, plain arrays."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from dtbench.analysis.results import TRIAL, SuiteResults, scores_text
from dtbench.analysis.suite_analysis import analyze, final_rows, headline_target, same
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from dtbench.ledger.store import DIVERGED, TrialRecord, write_bytes
from dtbench.ledger.trial_spec import TrialSpec

TASKS = "tasks"  # the array of names in a file for rliable: no contender may be called so
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal arrays give equal bytes

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What is to be written: the content of each file, by its path below the place, "" for the place itself."""

    files: Mapping[str, bytes]
    left_out: tuple[str, ...] = ()  # a sentence for each thing that could not be told


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is made, and the ending of its file; "" for a folder."""

    make: Callable[[SuiteResults], Exported]
    ending: str
    default: str  # what follows the suite's name where no path is given


def export(results: SuiteResults, kind: str, out: Path | None = None, *, force: bool = False) -> tuple[Path, Exported]:
    """Write a suite in one of FORMATS; give the path, and what was written and left out.

    Everything is made before anything is written. Raises UnknownName for the format, InvalidValue for a wrong ending,
    for what is there already without `force`, and for what cannot be written; NothingToReport for nothing to write.
    """
    path = check_place(kind, out or Path(f"{results.name}{format_of(kind).default}"), force=force)
    exported = format_of(kind).make(results)
    try:
        for name, content in exported.files.items():
            place = path / name if name else path
            place.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(place, content)
    except OSError as error:
        raise InvalidValue(f"cannot write {path}: {error.strerror or error}.") from error
    return path, exported


def format_of(kind: str) -> Format:
    """The format of this name; raise UnknownName."""
    if kind not in FORMATS:
        raise UnknownName("format", kind, FORMATS)
    return FORMATS[kind]


def check_place(kind: str, path: Path, *, force: bool = False) -> Path:
    """The path itself; raise InvalidValue where its ending is wrong or something is there that would be lost."""
    ending = format_of(kind).ending
    if ending and path.suffix != ending:
        raise InvalidValue(f"{path}: the format {kind} is written to a file that ends in {ending}.")
    if not ending and path.exists() and not path.is_dir():
        raise InvalidValue(f"{path} is a file, but the format {kind} needs a folder.")
    if ending and path.is_dir():
        raise InvalidValue(f"{path} is a folder, but the format {kind} is one file.")
    if not force and path.exists() and (ending or any(path.iterdir())):
        raise InvalidValue(f"{path} exists. Say --force to overwrite it, or --out for another place.")
    return path


def csv(results: SuiteResults) -> Exported:
    """The tidy table: what results/scores has."""
    return Exported({"": scores_text(results.scores).encode()}, _diverged(results))


def parquet(results: SuiteResults) -> Exported:
    """Every evaluation episode, labelled: `seed` is that of the training, `evaluation_seed` that of the episode."""
    content = io.BytesIO()
    episode_table(results).to_parquet(content, index=False)
    return Exported({"": content.getvalue()}, _diverged(results))


def episode_table(results: SuiteResults) -> pd.DataFrame:
    """A row an episode: suite, task, contender, algorithm, seed, key, step, target, episode, evaluation_seed, ...

    A column that only some tasks have is empty for the others.
    """
    labels = pd.DataFrame([_labels(record.spec) for record in results.records])
    rows = results.episodes.rows.rename(columns={TRIAL: "key", "seed": "evaluation_seed"}).astype({"key": str})
    truths = [name for name in rows if infer_dtype(rows[name], skipna=True) == "boolean"]
    return labels.merge(rows.astype(dict.fromkeys(truths, "boolean")), on="key")


def latex(results: SuiteResults) -> Exported:
    """Every table of the suite's report, and a main.tex that sets them all with booktabs."""
    from dtbench.analysis.page.suite_page import suite_page  # draws figures too: no other format waits for that

    made = suite_page(analyze(results))
    shown = [table for section in made.sections for table in section.tables]
    tables = {f"{table.name}.tex": table.latex(results.name).encode() for table in shown}
    if not tables:
        raise NothingToReport(f"the report of {results.name} has no table.")
    inputs = "".join(f"\\input{{{name.removesuffix('.tex')}}}\n\\clearpage\n" for name in sorted(tables))
    return Exported({**tables, "main.tex": _DOCUMENT.replace("TABLES\n", inputs).encode()})


def rliable(results: SuiteResults) -> Exported:
    """An .npz with an array of final scores for each contender, [seeds, tasks], and the names of the `tasks`.

    No pickles are in it. These three lines give it to rliable:

        scores = dict(np.load("SUITE-rliable.npz"))
        tasks = scores.pop("tasks")
        library.get_interval_estimates(scores, lambda x: np.array([metrics.aggregate_iqm(x)]))

    rliable knows no holes: a task that nobody ran is left out, and so is a seed that lacks a score on another task,
    and a contender without a whole seed.
    """
    matrices, left_out = score_matrices(results)
    if not matrices:
        raise NothingToReport(f"no contender of {results.name} has a seed with a score on every task.")
    if TASKS in matrices:
        raise InvalidValue(f"a contender is called {TASKS!r}, which is the name of the tasks' array: rename it.")
    names = next(iter(matrices.values())).columns
    arrays = {name: own.to_numpy(np.float64) for name, own in matrices.items()}
    return Exported(
        {"": npz_bytes({**arrays, TASKS: np.array(list(map(str, names)))})}, (*left_out, *_diverged(results))
    )


def _diverged(results: SuiteResults) -> tuple[str, ...]:
    """A sentence for each trial that has no score because it diverged."""
    lost = [trial.spec for trial in results.unfinished if trial.state == DIVERGED]
    return tuple(f"contender {spec.contender}, seed {spec.seed}: diverged on {spec.task}" for spec in lost)


def score_matrices(results: SuiteResults) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Final scores by contender, seeds x tasks without holes; and a sentence for each thing left out for that."""
    finals = final_rows(results).dropna(subset="score")
    ran = list(dict.fromkeys(finals["task"]))
    tasks = [task for task in results.suite.get("tasks") or ran if task in ran]
    idle = [task for task in results.suite.get("tasks") or [] if task not in ran]
    left_out = [f"task {task}: no finished trial has a score on it." for task in idle]
    matrices = {}
    for name, own in finals.groupby("contender", sort=False):
        pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=tasks)
        whole = pivot.dropna()
        lacking = {str(seed): ", ".join(row.index[row.isna()]) for seed, row in pivot.iterrows() if row.isna().any()}
        if whole.empty:
            seed, absent = next(iter(lacking.items()))
            told = f"no seed has a score on every task; seed {seed} has none on {absent}."
            left_out.append(f"contender {name}: {told}")
        else:
            matrices[str(name)] = whole
            left_out += [f"contender {name}, seed {seed} (no {absent})" for seed, absent in lacking.items()]
    return matrices, left_out


def npz(results: SuiteResults) -> Exported:
    """An .npz of plain arrays, named <contender>/<task>/<array>, nan where an episode or a checkpoint is missing.

    `seeds` [seeds]; `steps` [steps] and `curve` [seeds, steps], mean scores at the headline target; of the last
    checkpoint there `returns`, `scores`, `lengths` [seeds, episodes]; and `targets` [targets] (nan: none was asked
    for) with `achieved` [seeds, targets, episodes] in the units of the targets. Beside them `contenders`, `tasks`.
    """
    cells: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in results.records:
        cells.setdefault((record.spec.contender, record.spec.task), []).append(record)
    arrays: dict[str, NDArray[Any]] = {
        "contenders": np.array(list(dict.fromkeys(contender for contender, _ in cells))),
        TASKS: np.array(list(dict.fromkeys(task for _, task in cells))),
    }
    for (contender, task), records in cells.items():
        for name, array in cell_arrays(records).items():
            arrays[f"{contender}/{task}/{name}"] = array
    return Exported({"": npz_bytes(arrays)}, _diverged(results))


def cell_arrays(records: list[TrialRecord]) -> dict[str, NDArray[Any]]:
    """The arrays of one contender on one task, as `npz` names them."""
    episodes = [record.episodes() for record in records]
    last = [own[own["step"] == own["step"].max()] for own in episodes]
    asked = [headline_target(record, list(own["target"].unique())) for record, own in zip(records, last, strict=True)]
    finals = [own[same(own["target"], target)] for own, target in zip(last, asked, strict=True)]
    curves = [own[same(own["target"], target)] for own, target in zip(episodes, asked, strict=True)]
    means = pd.DataFrame([own.groupby("step")["score"].mean() for own in curves]).sort_index(axis=1)
    targets = np.unique(np.concatenate([own["target"].to_numpy(np.float64) for own in last]))
    return {
        "seeds": np.array([record.spec.seed for record in records]),
        "steps": means.columns.to_numpy(np.int64),
        "curve": means.to_numpy(np.float64),
        "returns": _padded([own["return"].to_numpy() for own in finals]),
        "scores": _padded([own["score"].to_numpy() for own in finals]),
        "lengths": _padded([own["length"].to_numpy() for own in finals]),
        "targets": targets,
        "achieved": _padded([list(_achieved(own, targets)) for own in last]),
    }


def npz_bytes(arrays: Arrays) -> bytes:
    """An .npz file; equal arrays give equal bytes, and any text can be a name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.getvalue())
    return content.getvalue()


def _labels(spec: TrialSpec) -> dict[str, Any]:
    return {
        "suite": spec.suite,
        "task": spec.task,
        "contender": spec.contender,
        "algorithm": spec.algorithm,
        "seed": spec.seed,
        "key": spec.key,
        "dataset_source": spec.dataset_source,
    }


def _achieved(own: pd.DataFrame, targets: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """For each target the episodes' returns in its units."""
    column = "achieved" if "achieved" in own else "return"
    for target in targets:
        yield own.loc[same(own["target"], target), column].to_numpy(np.float64)


def _padded(values: list[Any]) -> NDArray[np.float64]:
    """Nested lists of arrays as one array, nan where one is shorter than others."""
    if isinstance(values[0], list):
        width = max(len(one) for own in values for one in own)
        return np.stack([np.stack([_wide(one, width) for one in own]) for own in values])
    width = max(map(len, values))
    return np.stack([_wide(one, width) for one in values])


def _wide(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.pad(np.asarray(values, np.float64), (0, width - len(values)), constant_values=np.nan)


_DOCUMENT = r"""\documentclass{article}
\usepackage[a4paper, landscape, margin=1cm]{geometry}
\usepackage{booktabs}
\begin{document}
\small
TABLES
\end{document}
"""

FORMATS: dict[str, Format] = {
    "csv": Format(csv, ".csv", ".csv"),
    "parquet": Format(parquet, ".parquet", "-episodes.parquet"),
    "latex": Format(latex, "", "-latex"),
    "rliable": Format(rliable, ".npz", "-rliable.npz"),
    "npz": Format(npz, ".npz", ".npz"),
}
