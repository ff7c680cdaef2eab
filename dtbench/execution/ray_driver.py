"""Run trials with Ray Tune, and retry those whose workers failed."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from dtbench.data import cache
from dtbench.errors import LedgerUnwritable
from dtbench.execution import cluster
from dtbench.execution.cluster import RunContext
from dtbench.execution.local import OnProgress
from dtbench.execution.ray_worker import train
from dtbench.foreign import IMPORTS
from dtbench.ledger import lock
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.trial import CHECKPOINT_SECONDS, ShouldStop, never_stop

if TYPE_CHECKING:  # pyarrow's filesystems are for results at an address
    from dtbench.ledger.remote import Remote

ROUNDS = 5  # of Tune, which gives up a trial when one failure is reported twice
FINAL = (TrialState.DONE, TrialState.DIVERGED, TrialState.FAILED, TrialState.STOPPED)
OOM_FACTOR = 2.0  # of the resources of a trial that ran out of memory beside others


def run_ray(
    specs: Sequence[TrialSpec],
    root: Path,
    on_progress: OnProgress,
    *,
    address: str | None = None,
    should_stop: ShouldStop = never_stop,
    remote: "Remote | None" = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tracker: str = "",
) -> dict[str, TrialState]:
    """Run the trials with Ray Tune on the resources of their specs; return each key's final state.

    Starts Ray on this machine, or joins the cluster at `address`, whose nodes must all reach `root`, or `remote` if
    given. A trial whose worker or node failed is retried from its checkpoint; one that ran out of memory is retried
    once, after all others, on twice the resources. Raises DtbenchError where Ray cannot start or a node cannot run
    the trials, LedgerUnwritable where results cannot be written.
    """
    if not specs:
        return {}
    with (
        cluster.ray_started(address),
        run_context(specs, root, address, remote, checkpoint_seconds=checkpoint_seconds, tracker=tracker) as context,
        scratch_dir(root, remote) as storage,
    ):
        if address:
            cluster.check_nodes(context)
        driver = _Driver(specs, Ledger(root), on_progress, should_stop, context)
        while batch := driver.next_batch():
            _tuner(driver, batch, storage).fit()
            if driver.unwritable:
                raise LedgerUnwritable(driver.unwritable)
        return driver.final_states()


class _Driver(tune.Callback, tune.Stopper):  # type: ignore[misc]  # ray is not followed by the type checker
    """The driver of a run: trials' last reports, running trials and failures of workers."""

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        ledger: Ledger,
        on_progress: OnProgress,
        should_stop: ShouldStop,
        context: RunContext,
    ) -> None:
        self.specs, self.ledger, self.context = specs, ledger, context
        self.on_progress, self.should_stop = on_progress, should_stop
        self.states: dict[str, TrialState] = {}
        self.running: set[str] = set()
        self.nodes: dict[str, str] = {}  # trial -> the node that it runs on
        self.out_of_memory: set[str] = set()
        self.stopping: set[str] | None = None  # the running trials that have not stopped yet
        self.unwritable = ""
        self.rounds = 0

    def next_batch(self) -> list[TrialSpec]:
        """Return the trials without a final state; those that ran out of memory come last."""
        if self.should_stop() or self.context.oom_retry:
            return []
        unfinished = [spec for spec in self.specs if self.states.get(spec.key) not in FINAL]
        batch = [spec for spec in unfinished if spec.key not in self.out_of_memory]
        self.rounds += 1
        if batch and self.rounds <= ROUNDS:
            return batch
        self.context = replace(self.context, oom_retry=True)
        return [spec for spec in unfinished if spec.key in self.out_of_memory]

    def final_states(self) -> dict[str, TrialState]:
        """Return the trials' final states: Tune's fit() returns normally however many failed."""
        unfinished = TrialState.STOPPED if self.should_stop() else TrialState.FAILED
        states = {spec.key: self.states.get(spec.key, unfinished) for spec in self.specs}
        return {key: state if state in FINAL else unfinished for key, state in states.items()}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Mark the trial as running."""
        spec: TrialSpec = trial.config["spec"]
        self.running.add(spec.key)
        self.on_progress(spec, TrialState.RUNNING, 0, None)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **info: Any) -> None:
        """Store a worker's report."""
        spec: TrialSpec = trial.config["spec"]
        state = TrialState(result["state"])
        self.states[spec.key] = state
        self.nodes[spec.key] = result.get("node") or self.nodes.get(spec.key, "")
        self.unwritable = str(result.get("unwritable") or self.unwritable)
        if state is not TrialState.RUNNING:
            self.running.discard(spec.key)
        if state is TrialState.LOST:
            self.out_of_memory.add(spec.key)
        self.on_progress(spec, state, result["step"], result["score"])

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record the failure of a worker in its trial's directory, for the next worker."""
        spec: TrialSpec = trial.config["spec"]
        if spec.key not in self.running:  # Tune may report a failure twice
            return
        error = _last_error(trial)
        is_alive = self.context.is_local or cluster.is_alive(self.nodes.get(spec.key, ""))
        failure = {
            "cause": cause_of(error, node_is_alive=is_alive),
            "detail": " ".join(error.split())[:1000],
            "run": self.context.run_id,
            "when": lock.this_process()["began"],
        }
        path = self.ledger.add_worker_failure(spec, failure)
        if remote := self.context.remote:
            remote.write(path.relative_to(self.ledger.root.parent).as_posix(), path.read_bytes())
        self.running.discard(spec.key)
        self.states[spec.key] = TrialState.LOST
        self.on_progress(spec, TrialState.LOST, 0, None)

    on_trial_error = on_trial_recover

    def __call__(self, trial_id: str, result: Any) -> bool:
        """Return False: trials end by themselves."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end the run; set the workers' stop signal on the first request."""
        if self.unwritable:
            return True
        if not self.should_stop():
            return False
        if self.stopping is None:
            self.stopping = set(self.running) if _set_stop_signal(self.context.stop_signal) else set()
        self.stopping &= self.running
        return not self.stopping


def cause_of(error: str, *, node_is_alive: bool = True) -> str:
    """Return why a worker failed, from Ray's error and whether its node is alive."""
    if "OutOfMemoryError" in error or "low on memory" in error:
        return "out of memory"
    lost = ("NodeDied", "node has died", "node was terminated", "NodeDeath")
    return "node lost" if not node_is_alive or any(part in error for part in lost) else "worker died"


def placement(spec: TrialSpec, factor: float = 1.0) -> Any:
    """Return Ray's placement of a trial: `factor` times its resources, up to those of the largest node."""
    cpu = float(spec.resources.get("cpu", 1))
    gpu = float(spec.resources.get("gpu", 0))
    extra = int(spec.resources.get("extra_cpu", 0))
    bundle = {
        "CPU": max(cpu, min(factor * cpu, cluster.most_cores() - extra)),
        "GPU": min(factor * gpu, max(gpu, 1.0)),
    }
    return tune.PlacementGroupFactory([bundle, *[{"CPU": 1.0}] * extra])


@contextmanager
def run_context(
    specs: Sequence[TrialSpec],
    root: Path,
    address: str | None,
    remote: "Remote | None" = None,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tracker: str = "",
) -> Iterator[RunContext]:
    """Yield the facts of this run for its workers, with a live StopFlag actor."""
    run_id = uuid.uuid4().hex[:12]
    environment = {"DTBENCH_DATA": str(cache.root())} if address is None or "DTBENCH_DATA" in os.environ else {}
    if address is None:
        environment["HOME"] = os.environ.get("HOME", str(Path.home()))  # Ray was started with another one
    for name in ("DTBENCH_OFFLINE", IMPORTS):
        if value := os.environ.get(name):
            environment[name] = value
    actor = _stop_flag(f"dtbench-{run_id}")
    yield RunContext(
        run_id=run_id,
        root=root.resolve(),
        remote=remote,
        is_local=address is None,
        lock_holder=None if remote else lock.owner(root),
        environment=environment,
        working_dir=Path.cwd(),
        plugin_files=cluster.plugin_files(specs),
        versions=cluster.versions(),
        datasets=list({spec.dataset_digest: spec for spec in specs}.values()),
        stop_signal=f"dtbench-{run_id}",
        checkpoint_seconds=checkpoint_seconds,
        tracker=tracker,
    )
    del actor


@contextmanager
def scratch_dir(root: Path, remote: "Remote | None" = None) -> Iterator[dict[str, Any]]:
    """Yield the storage of Tune's own files, which all nodes reach; it is removed afterwards."""
    if remote is not None:
        with remote.scratch() as storage:
            yield storage
    else:
        with lock.process_directory(root, ".tune") as directory:
            yield {"storage_path": str(directory)}


def _tuner(driver: _Driver, specs: Sequence[TrialSpec], storage: Mapping[str, Any]) -> Any:
    factor = OOM_FACTOR if driver.context.oom_retry else 1.0
    return tune.Tuner(
        tune.with_resources(train, placement(specs[0], factor)),
        param_space={"context": driver.context, "spec": tune.grid_search(list(specs))},
        tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
        run_config=tune.RunConfig(
            name=f"trials-{driver.rounds}",
            **storage,
            callbacks=[driver],
            stop=driver,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=-1),  # `retry_policy` decides
        ),
    )


def _last_error(trial: Any) -> str:
    """Return Ray's error of a worker, which Tune appends to a file on this node."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition("Failure #")[2]
    except (OSError, TypeError):
        return ""


def _stop_flag(name: str) -> Any:
    """Return an actor on this node that holds whether to stop; it lives as long as its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class StopFlag:
        """A flag whether trials should stop."""

        value = False

        def set(self) -> None:
            self.value = True

        def is_set(self) -> bool:
            return self.value

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(StopFlag).options(name=name, namespace="dtbench", num_cpus=0, scheduling_strategy=here).remote()


def _set_stop_signal(name: str) -> bool:
    """Tell workers to stop; return False where the actor is gone, so that no worker will notice."""
    import ray

    try:
        ray.get(ray.get_actor(name, namespace="dtbench").set.remote(), timeout=10)
    except (ValueError, ray.exceptions.RayError):
        return False
    return True
