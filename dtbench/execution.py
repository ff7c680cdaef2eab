"""Run trials with Ray Tune or in this process; the only file that imports ray."""

import json
import logging
import os
import platform
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtbench.data import store
from dtbench.errors import DtbenchError
from dtbench.spec import TrialSpec
from dtbench.trial import run_trial

REPORT_SECONDS = 1.0  # between a trial's signs of life
RETRIES = 2  # after a worker died: killed, out of memory, or its node was lost

OnProgress = Callable[[TrialSpec, str, int, float | None], None]
"""(trial, "running" | "done" | "failed", steps done, latest score)"""


def run_locally(specs: Sequence[TrialSpec], root: Path, on_progress: OnProgress) -> dict[str, str]:
    """Run the trials one after another in this process; give each key's final state."""
    states = {}
    for spec in specs:
        on_progress(spec, "running", 0, None)

        def report(step: int, score: float | None, spec: TrialSpec = spec) -> None:
            on_progress(spec, "running", step, score)

        states[spec.key] = run_trial(spec, root, report)
        on_progress(spec, states[spec.key], spec.budget, None)
    return states


def run_with_ray(
    specs: Sequence[TrialSpec], root: Path, on_progress: OnProgress, *, address: str | None = None
) -> dict[str, str]:
    """Run the trials with Ray Tune, each on the resources that its spec names; give each key's final state.

    Starts a Ray of its own on this machine, or joins the cluster at `address`, whose nodes must all reach `root`.
    A trial whose worker died is tried again from its checkpoint. Raises DtbenchError where Ray cannot start.
    """
    if not specs:
        return {}
    with _ray(address):
        return _fit(specs, root, on_progress)


def _fit(specs: Sequence[TrialSpec], root: Path, on_progress: OnProgress) -> dict[str, str]:
    from ray import tune

    by_key = {spec.key: spec for spec in specs}
    states = dict.fromkeys(by_key, "failed")

    class Watch(tune.Callback):  # type: ignore[misc]  # ray is not followed by the type checker
        """Passes on what trials report; a trial that says nothing more has died."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            spec = by_key[json.loads(trial.config["spec"])["key"]]
            states[spec.key] = result.get("state", "running")
            on_progress(spec, states[spec.key], result.get("step", 0), result.get("score"))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            spec = by_key[json.loads(trial.config["spec"])["key"]]
            states[spec.key] = "failed"
            on_progress(spec, "failed", 0, None)

    storage = _scratch(root.resolve())
    environment = _worker_environment()
    resources = specs[0].resources
    trainable = tune.with_resources(_trainable, {"cpu": resources["cpu"], "gpu": resources["gpu"]})
    space = {
        "spec": tune.grid_search([json.dumps(spec.to_json()) for spec in specs]),
        "root": str(root.resolve()),
        "environment": environment,
    }
    try:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                callbacks=[Watch()],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    # fit() returns normally however many trials failed: what counts is what the trials themselves said.
    return {key: "done" if state == "done" else "failed" for key, state in states.items()}


def _trainable(config: Mapping[str, Any]) -> None:
    """What a Ray worker runs: one trial."""
    from ray import tune

    os.environ.update(config["environment"])
    os.chdir(config["environment"]["PWD"])
    spec = TrialSpec.from_json(json.loads(config["spec"]))
    last = time.monotonic()

    def report(step: int, score: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            tune.report({"state": "running", "step": step, "score": score})
            last = time.monotonic()

    state = run_trial(spec, Path(config["root"]), report)
    tune.report({"state": state, "step": spec.budget, "score": None})


def _worker_environment() -> dict[str, str]:
    """What workers must know of this process: its home and data, its folder and import path for plug-ins."""
    return {
        "HOME": os.environ.get("HOME", str(Path.home())),
        "DTBENCH_DATA": str(store.root()),
        "PWD": str(Path.cwd()),
    }


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A running Ray that says nothing, on the terminal or to the network."""
    import ray

    ray_home = store.root() / ".ray-home"
    _made(ray_home)
    # Ray's dashboard process asks the cloud's metadata address where it runs, whatever the usage-statistics
    # switch says, unless it finds this file in its HOME.
    (ray_home / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n")
    os.environ.update(QUIET)
    home = os.environ.get("HOME")
    if address is None:
        os.environ["HOME"] = str(ray_home)
    try:
        ray.init(
            address=address or "local",  # whatever RAY_ADDRESS says
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"num_cpus": _processors()}),
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise DtbenchError(f"Ray did not start: {error}. Run without it: --local.") from error
    finally:
        if home is not None:
            os.environ["HOME"] = home
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise DtbenchError at once where nobody listens at host:port; Ray itself would wait for minutes."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if address in ("auto", "local"):
        return
    if not match:
        raise DtbenchError(f"--address {address!r}: write auto, host:6379 or ray://host:10001.")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=5).close()
    except OSError as error:
        raise DtbenchError(f"no Ray at {address}: {error}. Start one: ray start --head --port {match[2]}.") from None


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would swallow Ctrl-C and return as if all were well
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "PYTHONWARNINGS": "ignore",
}


def _scratch(root: Path) -> Path:
    """A folder for Tune's own files; those of drivers that were killed on this machine are removed."""
    host = platform.node()
    for left in root.glob(f".tune-{host}-*"):
        process = left.name.removeprefix(f".tune-{host}-").split("-")[0]
        if not _alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".tune-{host}-{os.getpid()}-", dir=_made(root)))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _processors() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
