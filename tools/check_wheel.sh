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
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$scratch"/dist/*.whl
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
echo "the wheel works from an empty folder"
