"""All that is fuzzed, and the folder in which it happens."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz import files, ledgers, suites

TARGETS = (*suites.TARGETS, *files.TARGETS, *ledgers.TARGETS)


@contextmanager
def fresh_folder(above: Path) -> Iterator[Path]:
    """An empty folder as the working directory, with the store beside it and nobody's own datasets in reach."""
    folder, before = above / "here", Path.cwd()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = {
        "DTBENCH_DATA": str(above / "store"),
        "DTBENCH_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "MINARI_DATASETS_PATH": str(above / "minari"),
        "D4RL_DATASET_DIR": str(above / "d4rl"),
        "DQN_REPLAY_DIR": str(above / "replay"),
    }
    kept = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
