#!/usr/bin/env bash
# Build the wheel, install it into an empty environment, use it from an empty folder.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m build --wheel --no-isolation --outdir "$scratch/dist" "$root" >/dev/null
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" "$root/tools/install_torch.py" "$root/constraints.txt"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" \
  "$(ls "$scratch"/dist/*.whl)[video]"
mkdir "$scratch/empty" && cd "$scratch/empty"
export DTBENCH_DATA=$scratch/data
"$scratch/venv/bin/dtbench" run --suite key-to-door --preset smoke
DTBENCH_OFFLINE=1 "$scratch/venv/bin/dtbench" run --suite d4rl --preset smoke --local -t hopper-medium-v2 -t reacher2d-medium
DTBENCH_OFFLINE=1 "$scratch/venv/bin/dtbench" run --suite atari --preset smoke --local -t atari:pong task_options.steps=600
"$scratch/venv/bin/dtbench" report
test -s report/index.html
test -s results/scores/key-to-door.csv
grep -q "Chen et al. (2021), Table 6" report/key-to-door/report.md # the published numbers travelled along
grep -q "generated" report/d4rl/report.md # the behaviour policies too
grep -q "official-dt" report/atari/report.md # and those of Atari
DTBENCH_DATA=$scratch/none "$scratch/venv/bin/python" - <<'PYTHON' # a policy from the ledger, without its data
import dtbench

scores = dtbench.load_scores("results")
key = scores[(scores.task == "key-to-door-1k") & (scores.contender == "DT")].trial.iloc[0]
policy = dtbench.load_policy("results", key)
assert policy.evaluate([0.0, 0.5, 1.0], episodes=5).groupby("target").size().tolist() == [5, 5, 5]
for name in ("policy.gif", "policy.mp4"):
    policy.record(name, target_return=1.0)
PYTHON
test ! -e "$scratch/none"
test -s policy.gif
test -s policy.mp4
echo "the wheel works from an empty folder"
