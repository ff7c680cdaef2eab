"""Runs of MLflow in a local SQLite database."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dtbench.errors import InvalidValue
from dtbench.tracking.runs import Run, flat_config

DATABASE = "mlflow.db"
LONGEST = 500  # characters of a parameter, the limit of older servers
BATCH = 100  # parameters at a time, MLflow's limit


def write_runs(runs: Sequence[Run], folder: Path) -> None:
    """Write the runs into folder/mlflow.db, a suite as an experiment; raise InvalidValue without the package."""
    client_class, entities = _mlflow()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    client = client_class(tracking_uri=f"sqlite:///{folder / DATABASE}")
    suites = dict.fromkeys(run.spec.suite for run in runs)
    experiments = {
        suite: client.create_experiment(suite, artifact_location=(folder / "artifacts").as_uri()) for suite in suites
    }
    now = int(1000 * time.time())  # MLflow wants a time of every number; the ledger has none
    for run in runs:
        written = client.create_run(
            experiments[run.spec.suite], run_name=run.name, tags={"trial": run.spec.key}, start_time=now
        ).info.run_id
        parameters = [entities.Param(name, str(value)[:LONGEST]) for name, value in flat_config(run.spec).items()]
        for begin in range(0, len(parameters), BATCH):
            client.log_batch(written, params=parameters[begin : begin + BATCH])
        for step, scalars in run.points:
            metrics = [entities.Metric(name, value, now, step) for name, value in scalars.items()]
            client.log_batch(written, metrics=metrics)
        client.set_terminated(written, end_time=now)


def _mlflow() -> tuple[Any, Any]:
    """Return MLflow's client and entities; raise InvalidValue where it, or what its databases need, is missing."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported: nothing leaves the machine
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
        from mlflow import MlflowClient, entities
    except ModuleNotFoundError as error:
        raise InvalidValue(
            f"runs of MLflow need {error.name}: pip install mlflow-skinny alembic sqlalchemy."
        ) from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient, entities
