"""What half a million stored Atari steps take: disk, and the memory of learners that read them mapped.

    python benchmarks/atari_memory.py --steps 500000 --out memory.json

The frames are random bytes, stored by `dtbench.data.cache` in a folder that is removed again. Two learners of the
suite `atari` with its preset `cpu` update, each in a process of its own. Linux only: sizes are read from /proc. It
counts the pages of the mapped file that a process has touched as resident; RssAnon are those that it alone holds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import report, surroundings
from made_data import pong_shaped

from dtbench import TrajectoryDataset
from dtbench.data import cache
from dtbench.domains.atari.env import OBSERVATIONS
from dtbench.registry import make_algorithm
from dtbench.suite.planning import contender_on, load_suite

TASK, SUITE, PRESET, CONTENDERS = "atari:pong", "atari", "cpu", ("DT", "QR-DQN")
SEED = 0
CHUNK = 10_000  # frames written at a time
DISK_TARGET, MEMORY_TARGET = 5e9, 2e9  # bytes


def main() -> None:
    """Store the data, let every learner update, and print the sizes as JSON."""
    arguments = _arguments()
    if arguments.learner:
        print(json.dumps(trained(arguments.learner, arguments.stored, updates=arguments.updates)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch) / "stored"
        store_random_play(stored, steps=arguments.steps, scratch=Path(scratch))
        disk = sum(path.stat().st_size for path in stored.iterdir())
        learners = {name: in_own_process(name, stored, updates=arguments.updates) for name in CONTENDERS}
    peak = max(sizes["peak_resident_bytes"] for sizes in learners.values())
    result = {
        "steps": arguments.steps,
        "updates": arguments.updates,
        "learners_of": f"the suite {SUITE} with its preset {PRESET}, seed {SEED}",
        "disk_bytes": disk,
        "learners": learners,
        "within_targets": {"disk": disk < DISK_TARGET, "resident": peak < MEMORY_TARGET},
        **surroundings(),
    }
    report(result, arguments.out)


def store_random_play(folder: Path, *, steps: int, scratch: Path) -> None:
    """Store random frames, actions and rewards; the frames are never whole in memory."""
    path = scratch / "frames.bin"
    frames = random_frames(path, steps=steps, rng=np.random.default_rng(SEED))
    cache.save(pong_shaped(steps, seed=SEED, frames=frames), folder)
    path.unlink()


def random_frames(path: Path, *, steps: int, rng: np.random.Generator) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """Write so many frames to a file, and map it: [steps, 84, 84]."""
    frame = OBSERVATIONS.shape[1:]
    with path.open("wb") as file:
        for first in range(0, steps, CHUNK):
            file.write(rng.integers(256, size=(min(CHUNK, steps - first), *frame), dtype=np.uint8).data)
    return np.memmap(path, np.uint8, "r", shape=(steps, *frame))


def in_own_process(contender: str, stored: Path, *, updates: int) -> dict[str, Any]:
    """What `trained` gives, of a process that has done nothing else."""
    command = [sys.executable, __file__, "--learner", contender, "--stored", str(stored), "--updates", str(updates)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sizes: dict[str, Any] = json.loads(said.splitlines()[-1])
    return sizes


def trained(contender: str, stored: Path, *, updates: int) -> dict[str, Any]:
    """Begin the suite's contender on the stored data and update it; give bytes after the imports, and at most."""
    before = memory()
    dataset: TrajectoryDataset = cache.load(stored)
    settled = contender_on(load_suite(SUITE, preset=PRESET).contenders[contender], TASK)
    algorithm = make_algorithm(settled.algorithm, settled.hyperparameters)
    learner = algorithm.learner(dataset, seed=SEED, device=torch.device("cpu"))
    anonymous = [memory()["RssAnon"]]
    began = time.perf_counter()
    for _ in range(updates):
        learner.update()
        anonymous.append(memory()["RssAnon"])
    return {
        "imported": {"resident_bytes": before["VmRSS"], "anonymous_bytes": before["RssAnon"]},
        "peak_resident_bytes": memory()["VmHWM"],
        "peak_anonymous_bytes": max(anonymous),
        "seconds": round(time.perf_counter() - began, 1),
    }


def memory() -> dict[str, int]:
    """Sizes of this process by Linux's names for them, in bytes: VmRSS, VmHWM (its peak), RssAnon, ..."""
    pairs = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {pair[0].rstrip(":"): 1024 * int(pair[1]) for pair in pairs if pair[-1] == "kB"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500_000, help="1 %% of DQN-replay; 7 kB each, twice while stored")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--learner", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--stored", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
