"""Read scores as a table: the committed results, or those of a directory of yours.

python examples/read_results.py [RESULTS]
"""

import sys
from pathlib import Path

import dtbench

results = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "results"
scores = dtbench.load_scores(results)  # one row a trial, evaluation and target return
last = scores[scores.step == scores.groupby("trial").step.transform("max")]
best_target = last.groupby("trial").score.max()  # of the targets that a trial was asked for
trials = last.drop_duplicates("trial").set_index("trial").assign(score=best_target)
table = trials.groupby(["suite", "task", "contender"]).score.agg(["mean", "std", "count"])
print(table.round(1).to_string())
