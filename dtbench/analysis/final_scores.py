"""The final score of every trial: its last checkpoint, at the target return that its row stands for."""

import pandas as pd

from dtbench.analysis.headline import chosen_target, headline_target
from dtbench.analysis.results import SuiteResults, order_of, same
from dtbench.ledger.store import TrialRecord


def final_rows(results: SuiteResults) -> pd.DataFrame:
    """Return a row a trial, in the suite's order: its last checkpoint at its headline target, as in the score table.

    Added column: `successes` (episodes that scored 100; nan where scores are not all 0 or 100).
    """
    scores, order = results.scores, order_of(results)
    last = scores[scores["step"] == scores.groupby(["contender", "trial"])["step"].transform("max")]
    asked = last.groupby(["contender", "trial"], sort=False)["target"].agg(list).to_dict()
    headline = {
        trial: headline_target(
            record.spec, asked[trial], chosen_target(results.suite, record.spec.contender, record.spec.task)
        )
        for record in results.records
        if (trial := (record.spec.contender, record.spec.key)) in asked
    }
    wanted = [headline[trial] for trial in zip(last["contender"], last["trial"], strict=True)]
    rows = last[same(last["target"], wanted)]
    rows = rows.join(_successes(episodes_behind(results, rows)), on="trial")
    keys = [order(*cell) for cell in zip(rows["task"], rows["contender"], rows["seed"], strict=True)]
    return rows.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)


def episodes_behind(results: SuiteResults, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the episodes of every trial at its row's step and target."""
    first = rows.drop_duplicates("trial").set_index("trial")
    episodes = results.episodes.rows
    trials = episodes["trial"].astype(str)
    known = trials.isin(first.index)
    episodes, trials = episodes[known], trials[known]
    steps, targets = first["step"].reindex(trials).to_numpy(), first["target"].reindex(trials).to_numpy(float)
    return episodes[(episodes["step"].to_numpy() == steps) & same(episodes["target"], targets)]


def final_episodes(record: TrialRecord, step: int, target: float) -> pd.DataFrame:
    """Return the episodes behind a row of `final_rows`."""
    episodes = record.episodes()
    return episodes[(episodes["step"] == step) & same(episodes["target"], target)]


def _successes(episodes: pd.DataFrame) -> pd.Series:
    by_trial = episodes["trial"].astype(str)
    won = (episodes["score"] == 100).astype(float)
    binary = episodes["score"].isin([0.0, 100.0]).groupby(by_trial).all()
    return won.groupby(by_trial).sum().where(binary).rename("successes")
