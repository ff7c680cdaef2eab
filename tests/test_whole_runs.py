"""The page on whole runs beside JAX-CORL says what their rows say."""

import json
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def test_the_page_on_whole_runs_says_what_the_rows_say() -> None:
    page = (ROOT / "docs" / "whole-runs.md").read_text()
    document = json.loads((ROOT / "results" / "checks" / "whole_runs.json").read_text())
    rows = pd.DataFrame(document["rows"])
    assert rows.groupby(["algorithm", "side", "step"])["seed"].nunique().eq(3).all()
    means = rows.groupby(["step", "algorithm", "side"])[["score", "value_ratio", "value_correlation"]].mean().unstack()
    ours, theirs = (means.xs(side, axis=1, level="side") for side in ("dtbench", "JAX-CORL"))
    assert ((ours["value_ratio"] / theirs["value_ratio"] - 1).abs() < 0.01).all()
    assert ((ours["value_correlation"] - theirs["value_correlation"]).abs() < 0.02).all()
    for step in (20000, 40000, 60000, 80000, 100000):
        cells = []
        for algorithm in ("IQL", "TD3+BC"):
            for name, digits in (("score", 1), ("value_ratio", 2)):
                cells.append(", ".join(f"{side.loc[(step, algorithm), name]:.{digits}f}" for side in (ours, theirs)))
        assert f"| {step:,} | {' | '.join(cells)} |" in page
