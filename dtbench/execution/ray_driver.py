"""Run trials with Ray Tune or in this process, and what becomes of those that their worker did not survive."""

import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtbench.data import cache
from dtbench.errors import LedgerUnwritable
from dtbench.execution import cluster
from dtbench.execution.ray_worker import ledger_of, trainable
from dtbench.ledger import lock
from dtbench.ledger import lock as processes
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.trial import Stop, go_on, run_trial

if TYPE_CHECKING:  # pyarrow's file systems are for results on a URI
    from dtbench.ledger.remote import Remote

ROUNDS = 5  # of Tune over trials that it left without a word
FINAL = ("done", "diverged", "failed", "stopped")

OnProgress = Callable[[TrialSpec, str, int, float | None], None]
"""(trial, "running" | "done" | "failed" | "diverged" | "stopped" | "lost", steps done, latest score)"""


def run_locally(
    specs: Sequence[TrialSpec],
    root: Path,
    on_progress: OnProgress,
    *,
    stop: Stop = go_on,
    remote: "Remote | None" = None,
    checkpoint_seconds: float | None = None,
) -> dict[str, str]:
    """Run the trials one after another in this process; give each key's final state.

    Where `stop` says so, the trial at work writes its checkpoint, and no further one begins.
    """
    states: dict[str, str] = {}
    for spec in specs:
        if stop():
            states[spec.key] = "stopped"
            continue
        on_progress(spec, "running", 0, None)
        with ledger_of(spec, str(root), remote) as (folder, keep):
            report = partial(_running, on_progress, spec)
            states[spec.key] = run_trial(
                spec, folder, report, keep=keep, stop=stop, checkpoint_seconds=checkpoint_seconds
            )
        on_progress(spec, states[spec.key], spec.budget if states[spec.key] == "done" else 0, None)
    return states


def _running(on_progress: OnProgress, spec: TrialSpec, step: int, score: float | None) -> None:
    on_progress(spec, "running", step, score)


def run_with_ray(
    specs: Sequence[TrialSpec],
    root: Path,
    on_progress: OnProgress,
    *,
    address: str | None = None,
    stop: Stop = go_on,
    remote: "Remote | None" = None,
    checkpoint_seconds: float | None = None,
) -> dict[str, str]:
    """Run the trials with Ray Tune, each on the resources that its spec names; give each key's final state.

    Starts a Ray of its own on this machine, or joins the cluster at `address`, whose nodes must all reach `root`, or
    `remote` where there is one. A trial whose worker or node died is tried again from its checkpoint, one that ran out
    of memory once more on twice the resources, after all others. Raises DtbenchError where Ray cannot start or a node
    cannot run the trials, LedgerUnwritable where results cannot be written.
    """
    if not specs:
        return {}
    with cluster.ray_started(address), job_for(specs, root, address, remote) as job:
        job["checkpoint_seconds"] = checkpoint_seconds
        if address:
            cluster.check_nodes(job)
        sweep = _Sweep(specs, Ledger(root), on_progress, stop, remote, job)
        for _ in range(ROUNDS):
            sweep.run(sweep.unsettled, factor=1.0)
            if stop() or not sweep.unsettled:
                break
        if sweep.waiting_for_memory and not stop():
            sweep.run(sweep.waiting_for_memory, factor=2.0)
        return sweep.final_states()


def cause_of(error: str, *, node_answers: bool = True) -> str:
    """Why a worker died, by what Ray says of it, and by whether its node still answers."""
    if "OutOfMemoryError" in error or "low on memory" in error:
        return "out of memory"
    lost = ("NodeDied", "node has died", "node was terminated", "NodeDeath")
    return "node lost" if not node_answers or any(part in error for part in lost) else "worker died"


@dataclass
class _Sweep:
    """The driver's side of a run with Ray: what trials said last, which are at work, who died under them."""

    specs: Sequence[TrialSpec]
    ledger: Ledger
    on_progress: OnProgress
    stop: Stop
    remote: "Remote | None"
    job: dict[str, Any]
    states: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    nodes: dict[str, str] = field(default_factory=dict)  # trial -> the node that it runs on
    outstanding: set[str] | None = None  # those at work when it was asked to stop
    unwritable: str = ""

    def run(self, specs: Sequence[TrialSpec], *, factor: float) -> None:
        """Run these trials on `factor` times the resources that they name."""
        from ray import tune

        scratch, filesystem = scratch_folder(self.ledger.root.resolve(), self.remote)
        job = {**self.job, "roomy": factor > 1}
        try:
            tune.Tuner(
                tune.with_resources(trainable, bundles_for(specs[0], factor)),
                param_space={"job": job, "spec": tune.grid_search([json.dumps(spec.to_json()) for spec in specs])},
                tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=scratch,
                    storage_filesystem=filesystem,
                    callbacks=[_callback(self, {spec.key: spec for spec in specs})],
                    stop=_stopper(self),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=-1),  # `worker.after_deaths` decides
                ),
            ).fit()
        finally:
            remove_scratch(scratch, self.remote)
        if self.unwritable:
            raise LedgerUnwritable(self.unwritable)

    def began(self, spec: TrialSpec) -> None:
        """A worker was told to run the trial."""
        self.running.add(spec.key)
        self.on_progress(spec, "running", 0, None)

    def heard(self, spec: TrialSpec, said: Mapping[str, Any]) -> None:
        """A trial reported."""
        state = str(said.get("state", "running"))
        self.states[spec.key] = state
        self.nodes[spec.key] = said.get("node") or self.nodes.get(spec.key, "")
        if state == "unwritable":
            self.unwritable = str(said.get("message"))
        if state != "running":
            self.running.discard(spec.key)
        self.on_progress(spec, "lost" if state == "later" else state, said.get("step", 0), said.get("score"))

    def died(self, spec: TrialSpec, error: str) -> None:
        """A trial's worker died: say so in its folder, where the next worker looks. Tune may tell it twice."""
        if spec.key not in self.running:
            return
        node = self.nodes.get(spec.key, "")
        cause = cause_of(error, node_answers=self.job["alone"] or cluster.answers(node))
        detail = " ".join(error.split())[:1000]
        death = {"cause": cause, "detail": detail, "run": self.job["run"], "when": processes.this_process()["began"]}
        folder = self.ledger.add_death(spec, death)
        if self.remote:
            deaths = folder / "deaths.jsonl"
            self.remote.write(deaths.relative_to(self.ledger.root.parent).as_posix(), deaths.read_bytes())
        self.running.discard(spec.key)
        self.states[spec.key] = "lost"
        self.on_progress(spec, "lost", 0, None)

    def ended(self) -> bool:
        """Whether there is nothing more to wait for; asked by Tune all the time. Rings the bell when told to stop."""
        if self.unwritable:
            return True
        if not self.stop():
            return False
        if self.outstanding is None:
            self.outstanding = set(self.running) if _ring(self.job["bell"]) else set()
        self.outstanding &= self.running
        return not self.outstanding

    @property
    def unsettled(self) -> list[TrialSpec]:
        """Trials that said nothing final: not begun, or told twice of one death, at which Tune gives them up."""
        return [spec for spec in self.specs if self.states.get(spec.key, "waiting") not in (*FINAL, "later")]

    @property
    def waiting_for_memory(self) -> list[TrialSpec]:
        """Trials that ran out of memory beside their neighbours."""
        return [spec for spec in self.specs if self.states.get(spec.key) == "later"]

    def final_states(self) -> dict[str, str]:
        """What counts is what the trials themselves said: Tune's fit() returns normally however many failed."""
        final = {}
        for spec in self.specs:
            said = self.states.get(spec.key, "stopped" if self.stop() else "failed")
            unfinished = "stopped" if self.stop() else "failed"
            final[spec.key] = said if said in FINAL else unfinished
        return final


def _callback(sweep: _Sweep, by_key: Mapping[str, TrialSpec]) -> Any:
    from ray import tune

    def spec_of(trial: Any) -> TrialSpec:
        return by_key[json.loads(trial.config["spec"])["key"]]

    class Watch(tune.Callback):  # type: ignore[misc]  # ray is not followed by the type checker
        """Passes on what happens to trials."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            sweep.began(spec_of(trial))

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            sweep.heard(spec_of(trial), result)

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            sweep.died(spec_of(trial), _last_error(trial))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            sweep.died(spec_of(trial), _last_error(trial))

    return Watch()


def _last_error(trial: Any) -> str:
    """What Ray said of a worker's end: Tune writes it at the end of a file of this process's own."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition("Failure #")[2]
    except (OSError, TypeError):
        return ""


def _stopper(sweep: _Sweep) -> Any:
    from ray import tune

    class End(tune.Stopper):  # type: ignore[misc]
        """Ends the run, not its trials."""

        def __call__(self, trial_id: str, result: Any) -> bool:
            return False

        def stop_all(self) -> bool:
            return sweep.ended()

    return End()


@contextmanager
def job_for(
    specs: Sequence[TrialSpec], root: Path, address: str | None, remote: "Remote | None"
) -> Iterator[dict[str, Any]]:
    """What workers must know of this run, as plain values, while a bell stands ready to stop them."""
    run = uuid.uuid4().hex[:12]
    environment = {"DTBENCH_DATA": str(cache.root())} if address is None or "DTBENCH_DATA" in os.environ else {}
    if address is None:
        environment["HOME"] = os.environ.get("HOME", str(Path.home()))  # Ray was started with one of its own
    if offline := os.environ.get("DTBENCH_OFFLINE"):
        environment["DTBENCH_OFFLINE"] = offline
    bell = _hang_bell(f"dtbench-{run}")
    yield {
        "run": run,
        "root": str(root.resolve()),
        "remote": remote,
        "alone": address is None,
        "held": None if remote else lock.owner(root),
        "environment": environment,
        "folder": str(Path.cwd()),
        "files": cluster.plugin_files(specs),
        "versions": cluster.versions(),
        "data": cluster.node_data(specs),
        "bell": f"dtbench-{run}",
        "roomy": False,
    }
    del bell


def _hang_bell(name: str) -> Any:
    """An actor on this node that workers ask whether to stop; it goes when its handle does."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Bell:
        """Whether it was rung."""

        rung = False

        def ring(self) -> None:
            self.rung = True

        def was_rung(self) -> bool:
            return self.rung

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Bell).options(name=name, namespace="dtbench", num_cpus=0, scheduling_strategy=here).remote()


def _ring(name: str) -> bool:
    """Ring; False where the bell is gone, and with it all hope that trials hear of it."""
    import ray

    try:
        ray.get(ray.get_actor(name, namespace="dtbench").ring.remote(), timeout=10)
    except (ValueError, ray.exceptions.RayError):
        return False
    return True


def bundles_for(spec: TrialSpec, factor: float) -> Any:
    """What Ray sets aside for a trial, `factor` times what it names, as far as a node has it."""
    from ray import tune

    cpu = float(spec.resources.get("cpu", 1))
    gpu = float(spec.resources.get("gpu", 0))
    extra = int(spec.resources.get("extra_cpu", 0))
    bundle = {
        "CPU": max(cpu, min(factor * cpu, cluster.most_cores() - extra)),
        "GPU": min(factor * gpu, max(gpu, 1.0)),
    }
    return tune.PlacementGroupFactory([bundle, *[{"CPU": 1.0}] * extra])


def scratch_folder(root: Path, remote: "Remote | None") -> tuple[str, Any]:
    """A place for Tune's own files that all nodes reach; those of drivers that were killed here are removed."""
    if remote is not None:
        return remote.scratch()
    host = platform.node()
    for left in root.glob(f".tune-{host}-*"):
        process = left.name.removeprefix(f".tune-{host}-").split("-")[0]
        if process.isdigit() and not processes.is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=f".tune-{host}-{os.getpid()}-", dir=root), None


def remove_scratch(scratch: str, remote: "Remote | None") -> None:
    """Remove what `scratch_folder` gave."""
    if remote is not None:
        remote.remove_scratch(scratch)
    else:
        shutil.rmtree(scratch, ignore_errors=True)
