"""What a Ray worker runs: one trial, unless too many workers have died under it."""

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtbench.errors import LedgerUnwritable
from dtbench.execution import cluster
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.trial import Keep, keep_here, run_trial

if TYPE_CHECKING:  # pyarrow's file systems are for results on a URI
    from dtbench.ledger.remote import Remote

REPORT_SECONDS = 1.0  # between a trial's signs of life
WORKER_DEATHS = 2  # a worker that dies more often under one trial is replaced no more
NODE_LOSSES = 20  # no fault of the trial's, unless it takes its node down


def trainable(config: Mapping[str, Any]) -> None:
    """Run the trial that `config` names, for the job that `execution.job_for` describes."""
    from ray import tune

    job = config["job"]
    spec = TrialSpec.from_json(json.loads(config["spec"]))
    cluster.settle(job)
    tune.report({"state": "running", "step": 0, "score": None, "node": cluster.this_node()})
    last = time.monotonic()

    def report(step: int, score: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            tune.report({"state": "running", "step": step, "score": score})
            last = time.monotonic()

    try:
        state = _attempt(spec, job, report)
    except LedgerUnwritable as error:
        tune.report({"state": "unwritable", "message": str(error), "step": 0, "score": None})
        return
    tune.report({"state": state, "step": spec.budget if state == "done" else 0, "score": None})


def after_deaths(deaths: Sequence[Mapping[str, Any]], *, roomy: bool) -> str:
    """What becomes of a trial under which these workers died in this run: "again", "later" or "give up".

    Out of memory: once more, later, with fewer neighbours (`roomy`). A lost node is no fault of the trial's.
    """
    causes = [death.get("cause") for death in deaths]
    memory, nodes = causes.count("out of memory"), causes.count("node lost")
    others = len(causes) - memory - nodes
    if others > WORKER_DEATHS or nodes > NODE_LOSSES or memory > (2 if roomy else 1):
        return "give up"
    return "later" if memory and not roomy else "again"


@contextmanager
def ledger_of(spec: TrialSpec, root: str, remote: "Remote | None") -> Iterator[tuple[Path, Keep]]:
    """The ledger that a trial is run in, and what to call when its folder was written to."""
    if remote is None:
        yield Path(root), keep_here
    else:
        from dtbench.ledger.remote import working_copy

        with working_copy(remote, spec) as (folder, keep):
            yield folder, keep


def _attempt(spec: TrialSpec, job: Mapping[str, Any], report: Callable[[int, float | None], None]) -> str:
    bell = Bell(job["bell"])
    if bell():
        return "stopped"
    with ledger_of(spec, job["root"], job["remote"]) as (root, keep):
        ledger = Ledger(root)
        deaths = [death for death in ledger.deaths(spec) if death.get("run") == job["run"]]
        verdict = after_deaths(deaths, roomy=job["roomy"])
        if verdict == "again":
            if different := "" if job["alone"] else cluster.differences(job["versions"]):
                keep(ledger.fail(spec, cause="crash", text=f"node {platform.node()}: other versions: {different}"))
                return "failed"
            state = run_trial(spec, root, report, keep=keep, stop=bell, checkpoint_seconds=job["checkpoint_seconds"])
            out_of_memory = state == "failed" and ledger.failure(spec).get("cause") == "out of memory"
            return "later" if out_of_memory and not job["roomy"] else state
        if verdict == "give up" and ledger.state(spec) != "done":
            text = f"given up after {len(deaths)} workers died under it, the last one so:\n{deaths[-1]['detail']}"
            keep(ledger.fail(spec, cause=str(deaths[-1]["cause"]), text=text))
            return "failed"
    return "later" if verdict == "later" else "done"


class Bell:
    """A worker's ear for the driver's bell: asks now and then, and never waits for the answer."""

    def __init__(self, name: str) -> None:
        import ray

        self.ray, self.rung, self.asked = ray, False, 0.0
        self.answer: Any = None
        try:
            self.actor = ray.get_actor(name, namespace="dtbench")
            self.rung = bool(ray.get(self.actor.was_rung.remote(), timeout=30))
        except (ValueError, ray.exceptions.RayError):
            self.actor = None  # its node is lost, and the driver with it

    def __call__(self) -> bool:
        """Whether the driver asked trials to stop."""
        if self.rung or self.actor is None:
            return self.rung
        try:
            if self.answer is None:
                if time.monotonic() - self.asked > REPORT_SECONDS:
                    self.asked, self.answer = time.monotonic(), self.actor.was_rung.remote()
            elif self.ray.wait([self.answer], timeout=0)[0]:
                self.rung, self.answer = bool(self.ray.get(self.answer)), None
        except self.ray.exceptions.RayError:
            self.actor = None
        return self.rung
