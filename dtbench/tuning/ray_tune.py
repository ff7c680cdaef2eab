"""Searches with Ray Tune: samples side by side, those that fall behind stopped by its ASHA."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from dtbench.execution import cluster, ray_driver
from dtbench.tuning.driver import Journal, Plan, Proposals, Say, advance, told
from dtbench.tuning.search import ENDED, Sample, plain_sample, read_sample

WORKER_DEATHS = 2  # of one sample: it is continued so often, then it counts as failed


def run_with_ray(plan: Plan, journal: Journal, proposals: Proposals, say: Say, *, address: str | None = None) -> None:
    """Run the samples that are left, each on the resources that its suite names.

    Starts a Ray of its own on this machine, or joins the cluster at `address`, whose nodes must all reach the results.
    Raises DtbenchError where Ray cannot start or a node cannot run the trials.
    """
    from ray import tune

    left = plan.asked - sum(sample.state in ENDED for sample in journal.record.samples)
    if left < 1:
        return
    with (
        cluster.ray_started(address),
        ray_driver.run_context(plan.specs, plan.root, address) as context,
        ray_driver.scratch_dir(plan.root) as storage,
    ):
        if address:
            cluster.check_nodes(context)
        search = _Search(plan, journal, proposals, say)
        scheduler = _scheduler(plan)
        search.replay(scheduler)
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, plan=plan, context=context), ray_driver.placement(plan.specs[0])
            ),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(search),
                scheduler=scheduler,
                num_samples=left,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                **storage,
                callbacks=[_callback(search)],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            ),
        ).fit()


@dataclass(frozen=True, slots=True)
class _Search:
    """The driver's side: what Tune asks for and tells."""

    plan: Plan
    journal: Journal
    proposals: Proposals
    say: Say

    def begin(self) -> Sample | None:
        """The next sample, written down before it runs."""
        sample = self.proposals.next()
        if sample:
            self.journal.keep(replace(sample, state="running"))
        return sample

    def heard(self, said: Mapping[str, Any]) -> None:
        """A sample passed a rung, or ended."""
        sample = read_sample(said)
        self.journal.keep(sample)
        self.say(told(sample, self.plan))

    def ended(self, number: int, *, lost: bool = False) -> None:
        """A sample runs no more: what had not ended by itself was stopped, or its worker died."""
        sample = self.journal.sample(number)
        if sample.state == "running":
            sample = replace(sample, state="failed" if lost else "stopped")
            self.journal.keep(sample)
            self.say(told(sample, self.plan))
        self.proposals.tell(sample)

    def replay(self, scheduler: Any) -> None:
        """Tell a new scheduler what the samples of an earlier run scored at its rungs."""
        question = self.plan.question
        for sample in self.journal.record.samples:
            stub = SimpleNamespace(trial_id=f"earlier-{sample.number}")
            scheduler.on_trial_add(None, stub)  # of ASHA; the scheduler without rungs takes nothing
            for rung in question.rungs[:-1]:
                score = sample.objective(question, rung)
                if score is not None:
                    scheduler.on_trial_result(None, stub, {"steps": rung, "score": score, "training_iteration": 1})


def _trainable(config: Mapping[str, Any], plan: Plan, context: cluster.RunContext) -> None:
    """What a Ray worker runs: one sample, from rung to rung."""
    from ray import tune

    cluster.apply_environment(context)
    sample = read_sample(json.loads(config["sample"]))
    specs = plan.specs_of(sample.hyperparameters)
    for rung in plan.question.rungs:
        sample = advance(sample, specs, context.root, rung)
        score = sample.objective(plan.question, rung)
        said = {"steps": rung, "score": float("nan") if score is None else score}
        tune.report({**said, "sample": json.dumps(plain_sample(sample))})
        if sample.state != "running":
            return


def _scheduler(plan: Plan) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    question = plan.question
    if question.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="steps",
        metric="score",
        mode="max",
        max_t=question.budget,
        grace_period=question.rungs[0],
        reduction_factor=question.reduction_factor,
    )


def _searcher(search: _Search) -> Any:
    from ray.tune.search import Searcher

    class FromProposals(Searcher):  # type: ignore[misc]  # ray is not followed by the type checker
        """Hands out the search's own samples; each is written down before it runs."""

        def suggest(self, trial_id: str) -> Any:
            sample = search.begin()
            if sample is None:
                return Searcher.FINISHED
            return {"number": sample.number, "sample": json.dumps(plain_sample(sample))}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The callback tells."""

        def save(self, checkpoint_path: str) -> None:
            """The journal has it all."""

        def restore(self, checkpoint_path: str) -> None:
            """Likewise."""

    return FromProposals(metric="score", mode="max")


def _callback(search: _Search) -> Any:
    from ray import tune

    class Watch(tune.Callback):  # type: ignore[misc]
        """Passes on what happens to samples."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            search.heard(json.loads(result["sample"]))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            search.ended(trial.config["number"])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            search.ended(trial.config["number"], lost=True)

    return Watch()
