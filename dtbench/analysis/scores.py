"""The tidy table that every table and figure is made from: one row a trial, checkpoint and target return."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.ledger import Ledger, TrialRecord
from dtbench.spec import TrialSpec

COLUMNS = (
    "suite",
    "task",
    "contender",
    "algorithm",
    "seed",
    "step",
    "target",
    "action_mode",
    "episodes",
    "return_mean",
    "return_std",
    "achieved_mean",
    "length_mean",
    "score",
    "dataset_source",
    "dataset_digest",
    "trial",
)
ACHIEVED = "achieved_mean"  # in the task's target units; left out of files where no task of the suite has its own


@dataclass(frozen=True, slots=True)
class SuiteResults:
    """All that a report may know: what was to run, what ran, and nothing else."""

    suite: Mapping[str, Any]  # the resolved suite: name, title, description, preset, tasks, contenders, seeds, ...
    records: tuple[TrialRecord, ...]
    not_run: tuple[TrialSpec, ...]
    scores: pd.DataFrame  # COLUMNS


def collect(suite: Mapping[str, Any], ledger: Ledger) -> SuiteResults:
    """Everything in the ledger that belongs to a suite's planned trials, further seeds included."""
    planned = [TrialSpec.from_json(trial) for trial in suite["trials"]]
    records: dict[tuple[str, str], TrialRecord] = {}
    for spec in {spec.cell: spec for spec in planned}.values():
        records |= {(spec.contender, record.spec.key): record for record in ledger.siblings(spec)}
    not_run = tuple(spec for spec in planned if (spec.contender, spec.key) not in records)
    found = tuple(records.values())
    return SuiteResults(suite, found, not_run, score_table(found))


def score_table(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """COLUMNS, sorted; `return_std` is over the evaluation episodes of one trial (population)."""
    rows = [row for record in records for row in _rows(record)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    keys = ["task", "contender", "seed", "step", "target", "trial"]
    return table.sort_values(keys, na_position="first", kind="stable").reset_index(drop=True)


def headline_rows(scores: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """All checkpoints of the trials in `finals`, at the target of each trial's row there."""
    keys = ["contender", "trial"]
    wanted = finals[[*keys, "target"]].rename(columns={"target": "headline"})
    rows = scores.merge(wanted, on=keys, how="inner")
    same = (rows["target"] == rows["headline"]) | (rows["target"].isna() & rows["headline"].isna())
    return rows[same].drop(columns="headline")


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write the tidy table as CSV, `achieved_mean` only where it says anything: equal ledgers give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    if table[ACHIEVED].isna().all():
        table = table.drop(columns=ACHIEVED)
    table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    temporary.replace(path)


def _rows(record: TrialRecord) -> Iterable[dict[str, Any]]:
    spec = record.spec
    groups = record.episodes().groupby(["step", "target"], dropna=False, sort=True)
    for (step, target), episodes in groups:
        yield {
            "suite": spec.suite,
            "task": spec.task,
            "contender": spec.contender,
            "algorithm": spec.algorithm,
            "seed": spec.seed,
            "step": int(step),
            "target": target,
            "action_mode": record.result["action_mode"],
            "episodes": len(episodes),
            "return_mean": episodes["return"].mean(),
            "return_std": episodes["return"].std(ddof=0),
            ACHIEVED: episodes["achieved"].mean() if "achieved" in episodes else float("nan"),
            "length_mean": episodes["length"].mean(),
            "score": episodes["score"].mean(),
            "dataset_source": spec.dataset_source,
            "dataset_digest": spec.dataset_digest,
            "trial": spec.key,
        }
