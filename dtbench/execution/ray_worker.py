"""Run one trial in a Ray worker, unless too many of its workers have failed."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from dtbench.errors import LedgerUnwritable
from dtbench.execution import cluster
from dtbench.execution.cluster import RunContext
from dtbench.execution.local import trial_ledger
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.tracking.live import tracked
from dtbench.trial import run_trial

REPORT_SECONDS = 1.0  # between a trial's reports, and between checks of the stop flag
MAX_WORKER_FAILURES = 2  # of one trial, within one run
MAX_NODE_LOSSES = 20  # the trial may be the cause


class Retry(StrEnum):
    """What to do after failures of a trial's workers."""

    RETRY = "retry"
    RETRY_LATER = "retry later"  # beside fewer trials
    GIVE_UP = "give up"


def retry_policy(failures: Sequence[Mapping[str, Any]], *, oom_retry: bool) -> Retry:
    """Return what to do with a trial after these failures of its workers in this run.

    A trial that ran out of memory is retried once, after all others and on more resources (`oom_retry`).
    """
    causes = [failure.get("cause") for failure in failures]
    memory, nodes = causes.count("out of memory"), causes.count("node lost")
    others = len(causes) - memory - nodes
    if others > MAX_WORKER_FAILURES or nodes > MAX_NODE_LOSSES or memory > (2 if oom_retry else 1):
        return Retry.GIVE_UP
    return Retry.RETRY_LATER if memory and not oom_retry else Retry.RETRY


def train(config: Mapping[str, Any]) -> None:
    """Run the trial `config["spec"]` of the run `config["context"]` and report its state; LOST means to retry it."""
    from ray import tune

    spec: TrialSpec = config["spec"]
    context: RunContext = config["context"]
    cluster.apply_environment(context)
    tune.report({"state": TrialState.RUNNING, "step": 0, "score": None, "node": cluster.node_id()})
    should_stop = StopSignal(context.stop_signal)
    state: TrialState | None = None
    try:
        if should_stop():
            state = TrialState.STOPPED
        else:
            with (
                trial_ledger(spec, context.root, context.remote) as (ledger, on_saved),
                tracked(context.tracker, spec, ledger, on_saved) as on_logged,
            ):
                state = _state_without_running(spec, ledger, context)
                if state is TrialState.FAILED:
                    on_saved(ledger.folder(spec))
                elif state is None:
                    state = run_trial(
                        spec,
                        ledger,
                        should_stop=should_stop,
                        on_progress=_throttled_report(),
                        on_saved=on_saved,
                        on_logged=on_logged,
                        checkpoint_seconds=context.checkpoint_seconds,
                    )
                    if _ran_out_of_memory(spec, ledger) and not context.oom_retry:
                        state = TrialState.LOST
    except LedgerUnwritable as error:
        tune.report({"state": TrialState.LOST, "step": 0, "score": None, "unwritable": str(error)})
        return
    tune.report({"state": state, "step": spec.train_steps if state is TrialState.DONE else 0, "score": None})


def _state_without_running(spec: TrialSpec, ledger: Ledger, context: RunContext) -> TrialState | None:
    """Return the state of a trial that must not run here, and record why; None where it may run."""
    failures = [failure for failure in ledger.worker_failures(spec) if failure.get("run") == context.run_id]
    retry = retry_policy(failures, oom_retry=context.oom_retry)
    if retry is Retry.RETRY_LATER:
        return TrialState.LOST
    if retry is Retry.GIVE_UP:
        if ledger.state(spec) is TrialState.DONE:
            return TrialState.DONE
        text = f"given up after {len(failures)} failures of its workers, the last:\n{failures[-1]['detail']}"
        ledger.record_failure(spec, cause=str(failures[-1]["cause"]), text=text)
        return TrialState.FAILED
    if different := "" if context.is_local else cluster.differences(context.versions):
        ledger.record_failure(spec, cause="crash", text=f"node {platform.node()}: other versions: {different}")
        return TrialState.FAILED
    return None


def _ran_out_of_memory(spec: TrialSpec, ledger: Ledger) -> bool:
    return ledger.state(spec) is TrialState.FAILED and ledger.failure(spec).cause == "out of memory"


def _throttled_report() -> Callable[[int, float | None], None]:
    from ray import tune

    last = time.monotonic()

    def report(step: int, score: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            tune.report({"state": TrialState.RUNNING, "step": step, "score": score})
            last = time.monotonic()

    return report


class StopSignal:
    """A worker's view of the driver's StopFlag, which it polls without waiting for the answer."""

    def __init__(self, name: str) -> None:
        """Find the actor `name`; where it is gone, so is the driver."""
        import ray

        self.ray, self.is_set, self.last_poll = ray, False, 0.0
        self.answer: Any = None
        try:
            self.actor = ray.get_actor(name, namespace="dtbench")
            self.is_set = bool(ray.get(self.actor.is_set.remote(), timeout=30))
        except (ValueError, ray.exceptions.RayError):
            self.actor = None

    def __call__(self) -> bool:
        """Return whether trials should stop."""
        if self.is_set or self.actor is None:
            return self.is_set
        try:
            if self.answer is None:
                if time.monotonic() - self.last_poll > REPORT_SECONDS:
                    self.last_poll, self.answer = time.monotonic(), self.actor.is_set.remote()
            elif self.ray.wait([self.answer], timeout=0)[0]:
                self.is_set, self.answer = bool(self.ray.get(self.answer)), None
        except self.ray.exceptions.RayError:
            self.actor = None
        return self.is_set
