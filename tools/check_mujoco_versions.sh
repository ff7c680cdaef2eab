#!/usr/bin/env bash
# Play the golden rollouts, and run the tests of physics and games, with several versions of MuJoCo.
# Usage: tools/check_mujoco_versions.sh [python] [version ...]: a Python that has dtbench and its tests' needs.
set -euo pipefail
python=${1:-python3}
shift || true
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(2.3.7 3.4.0 "4.*") # the oldest allowed, the last before 3.5, the newest 4.x
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for version in "${versions[@]}"; do
  venv=$scratch/mujoco-$version
  "$python" -m venv "$venv"
  # All but MuJoCo comes from the given Python: what is installed here goes before it.
  own=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import site; site.addsitedir('$packages')" >"$own/given.pth"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "mujoco==$version" 2>"$scratch/pip.log" ||
    { cat "$scratch/pip.log" && exit 1; }
  mkdir -p "$scratch/empty" && cd "$scratch/empty" # MuJoCo 4 writes MUJOCO_LOG.TXT into the current folder
  PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -W ignore - 2>/dev/null <<'CHECK'
import gymnasium, mujoco, numpy
from tests.domains.test_physics import ROBOTS, deviation

found = ", ".join(f"{robot} {deviation(robot, 'd4rl'):.1e}" for robot in ROBOTS)
print(f"mujoco {mujoco.__version__}, gymnasium {gymnasium.__version__}, numpy {numpy.__version__}: {found}")
CHECK
  PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$root" \
    -c "$root/pyproject.toml" "$root/tests/domains/test_physics.py" "$root/tests/domains/test_games.py"
done
echo "the robots are the same with every MuJoCo: largest differences from the golden rollouts above"
