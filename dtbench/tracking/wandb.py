"""Offline runs of Weights & Biases, which `wandb sync` uploads when its user says so."""

import os
from collections.abc import Sequence
from pathlib import Path

from dtbench.errors import InvalidValue
from dtbench.tracking.runs import Run, config_of

PROJECT = "dtbench"


def write_runs(runs: Sequence[Run], folder: Path) -> None:
    """Write each run below folder/wandb; raise InvalidValue where the package is not installed."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported: nothing leaves the machine
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise InvalidValue(f"runs of Weights & Biases need {error.name}: pip install wandb.") from error
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_meta=True,  # of this machine: it did not train the run
        x_disable_stats=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        with wandb.init(
            mode="offline",
            dir=str(folder),
            project=PROJECT,
            group=run.spec.suite,
            job_type=run.spec.contender,
            name=run.name,
            id=run.spec.key,
            config=config_of(run.spec),
            settings=settings,
        ) as written:
            for step, scalars in run.points:
                written.log(dict(scalars), step=step)
