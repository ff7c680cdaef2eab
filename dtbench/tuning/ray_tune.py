"""Run searches with Ray Tune: parallel candidates, early stopping by ASHA, exact resume after a kill."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator

from dtbench.errors import LedgerError
from dtbench.execution import cluster, ray_driver
from dtbench.ledger import lock
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.trial import ShouldStop, run_trial
from dtbench.tuning.planning import Search
from dtbench.tuning.search import ENDED, Candidate, Score, SearchConfig, SearchRecord, read_record, write_record
from dtbench.tuning.space import Setting, rounded

WORKER_FAILURES = 2  # of one candidate, after which it fails

Report = Callable[[int, Candidate], None]  # (gradient steps, candidate with its scores so far)


class SearchState:
    """The record of a running search, written after every change, so that a killed search can be continued."""

    def __init__(self, search: Search) -> None:
        """Start or continue the search of this name; raise LedgerError where its configuration differs."""
        self.path = search.root / "search.json"
        self.record = SearchRecord(name=search.name, config=search.config, num_samples=search.num_samples)
        if self.path.exists():
            earlier = read_record(self.path)
            _check_same(earlier, self.record, self.path)
            self.record = self.record.model_copy(update={"candidates": earlier.candidates})

    def candidate(self, setting: Setting) -> Candidate:
        """Return the candidate with this setting, perhaps a new one."""
        known = (one for one in self.record.candidates if one.hyperparameters == setting)
        return next(known, Candidate(number=len(self.record.candidates), hyperparameters=dict(setting)))

    def update(self, candidate: Candidate, **changes: Any) -> Candidate:
        """Write a candidate with these changes."""
        number = self.candidate(candidate.hyperparameters).number
        candidate = candidate.model_copy(update={**changes, "number": number})
        self.record = self.record.with_candidate(candidate)
        write_record(self.path, self.record)
        return candidate

    @property
    def ended(self) -> list[Candidate]:
        """Return the candidates that are not trained again."""
        return [candidate for candidate in self.record.candidates if candidate.state in ENDED]


@contextmanager
def search_state(search: Search) -> Iterator[SearchState]:
    """Yield the state of a search and hold its ledger."""
    with lock.acquire(search.root):
        yield SearchState(search)


def run_search(search: Search, state: SearchState, say: Callable[[str], None], *, address: str | None = None) -> None:
    """Run the remaining candidates, each on the resources of its suite.

    Starts Ray on this machine, or joins the cluster at `address`, whose nodes must all reach the results. Candidates
    of an earlier run come first; those that ended only report their scores to ASHA and optuna. Raises DtbenchError
    where Ray cannot start or a node cannot run the trials.
    """
    if len(state.ended) >= search.num_samples:
        return
    with (
        cluster.ray_started(address),
        ray_driver.run_context(search.specs, search.root, address) as context,
        ray_driver.scratch_dir(search.root) as storage,
    ):
        if address:
            cluster.check_nodes(context)
        trainable = tune.with_parameters(_trainable, search=search, context=context, ended=state.ended)
        tune.Tuner(
            tune.with_resources(trainable, ray_driver.placement(search.specs[0])),
            param_space={"setting": _param_space(search)},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=_search_alg(search, state),
                scheduler=_scheduler(search.config),
                num_samples=1 if search.settings else search.num_samples,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                **storage,
                callbacks=[_Recorder(state, say)],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=WORKER_FAILURES),
            ),
        ).fit()


def train_candidate(search: Search, setting: Setting, report: Report, ended: Sequence[Candidate] = ()) -> None:
    """Train a candidate's trials from rung to rung and report at each; a candidate in `ended` only reports."""
    candidate = Candidate(number=0, hyperparameters=dict(setting))  # numbered by the driver
    for known in ended:
        if known.hyperparameters == setting:
            for step in search.config.rungs:
                if known.objective(search.config, step) is not None:
                    report(step, known)
            return
    specs = search.specs_of(setting)
    search.root.mkdir(parents=True, exist_ok=True)
    with FileLock(search.root / f"{specs[0].key}.lock"):  # optuna may propose a setting twice
        for step in search.config.rungs:
            candidate = _advance(candidate, specs, search.root, step)
            report(step, candidate)
            if candidate.state != TrialState.RUNNING:
                return


def describe(candidate: Candidate, record: SearchRecord) -> str:
    """Return a line about a candidate at a rung or its end."""
    score, step = candidate.objective(record.config), candidate.last_step(record.config)
    setting = ", ".join(f"{name}={value}" for name, value in candidate.hyperparameters.items()) or "the suite's own"
    targets = {target for target in candidate.targets(record.config).values() if target is not None}
    at = f" (target {', '.join(f'{target:g}' for target in sorted(targets))})" if targets else ""
    scored = "no score" if score is None else f"{score:.4g} after {step} steps{at}"
    return f"{candidate.state:<8} {candidate.number + 1}/{record.num_samples}  {scored}  {setting}"


def _trainable(
    config: Mapping[str, Any], search: Search, context: cluster.RunContext, ended: Sequence[Candidate]
) -> None:
    def report(step: int, candidate: Candidate) -> None:
        score = candidate.objective(search.config, step)
        score = math.nan if score is None else score
        tune.report({"steps": step, "score": score, "candidate": candidate.model_dump_json()})

    cluster.apply_environment(context)
    train_candidate(search, rounded(config["setting"]), report, ended)


def _param_space(search: Search) -> Any:
    if search.settings:
        return tune.grid_search(list(search.settings))
    return {name: values.domain() for name, values in search.space.items()}


def _search_alg(search: Search, state: SearchState) -> Any:
    if search.settings:
        return BasicVariantGenerator()
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    earlier = [{f"setting/{name}": v for name, v in one.hyperparameters.items()} for one in state.record.candidates]
    # The seed of the earlier run would propose the same candidates again.
    return OptunaSearch(seed=search.config.seed + len(earlier), points_to_evaluate=earlier)


def _scheduler(config: SearchConfig) -> Any:
    if config.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="steps",
        max_t=config.train_steps,
        grace_period=config.rungs[0],
        reduction_factor=config.reduction_factor,
    )


class _Recorder(tune.Callback):  # type: ignore[misc]  # ray is not followed by the type checker
    """Writes the candidates to disk."""

    def __init__(self, state: SearchState, say: Callable[[str], None]) -> None:
        self.state, self.say = state, say

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        candidate = self._candidate(trial)
        if candidate.state not in ENDED:
            self.state.update(candidate, state=TrialState.RUNNING)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        before = self._candidate(trial)
        now = self.state.update(Candidate.model_validate_json(result["candidate"]))
        if now != before:
            self.say(describe(now, self.state.record))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(trial, TrialState.STOPPED)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._end(trial, TrialState.FAILED)

    def _candidate(self, trial: Any) -> Candidate:
        return self.state.candidate(rounded(trial.config["setting"]))

    def _end(self, trial: Any, outcome: TrialState) -> None:
        candidate = self._candidate(trial)
        if candidate.state == TrialState.RUNNING:  # Tune stopped it
            self.say(describe(self.state.update(candidate, state=outcome), self.state.record))


def _check_same(earlier: SearchRecord, now: SearchRecord, path: Path) -> None:
    """Raise LedgerError where the search of this name has another configuration."""
    fields = SearchConfig.model_fields
    if other := sorted(name for name in fields if getattr(earlier.config, name) != getattr(now.config, name)):
        raise LedgerError(
            f"the search {now.name} in {path} has another configuration: its {', '.join(other)} differ. "
            "Repeat the command that began it, or choose another --name."
        )
    if len(earlier.candidates) > now.num_samples:
        raise LedgerError(
            f"the search {now.name} has {len(earlier.candidates)} samples. Use --samples of at least that."
        )


def _advance(candidate: Candidate, specs: Sequence[TrialSpec], root: Path, step: int) -> Candidate:
    """Train a candidate's trials from their checkpoints to a step, and return it with their scores."""
    ledger, state = Ledger(root), TrialState.RUNNING
    for spec in specs:
        start = _progress(ledger, spec)[0]
        if start < step or step == spec.train_steps:
            state = run_trial(spec, ledger, should_stop=_stop_after(step - start))
        if state in (TrialState.FAILED, TrialState.DIVERGED):
            break
    else:
        all_done = all(ledger.state(spec) == TrialState.DONE for spec in specs)
        state = TrialState.DONE if all_done else TrialState.RUNNING
    steps, seconds, scores = zip(*(_progress(ledger, spec) for spec in specs), strict=True)
    return candidate.model_copy(
        update={
            "state": state,
            "steps": sum(steps),
            "seconds": round(sum(seconds), 1),
            "scores": tuple(itertools.chain(*scores)),
        }
    )


def _stop_after(steps: int) -> ShouldStop:
    """Return a function that is True from its `steps`-th call on, one call a step."""
    calls = itertools.count(1)
    return lambda: next(calls) >= steps


def _progress(ledger: Ledger, spec: TrialSpec) -> tuple[int, float, tuple[Score, ...]]:
    """Return a trial's steps, seconds and scores from its checkpoint."""
    path = ledger.folder(spec) / "checkpoint.pt"
    if not path.exists():
        return ledger.failure(spec).step or 0, 0.0, ()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        scores = tuple(score for columns in state["episodes"] for score in _scores(spec, columns))
        return int(state["step"]), float(state["seconds"]), scores
    except Exception as error:
        raise LedgerError(f"cannot read {path}: {error}. Delete it to restart the trial.") from error


def _scores(spec: TrialSpec, columns: Mapping[str, Sequence[Any]]) -> Iterator[Score]:
    """Yield the mean score of one evaluation for each target return."""
    episodes = pd.DataFrame({name: columns[name] for name in ("step", "target", "score")})
    for (step, target), scores in episodes.groupby(["step", "target"], sort=False, dropna=False)["score"]:
        target_return = None if math.isnan(target) else float(target)
        yield Score(spec.task, spec.seed, int(step), target_return, round(float(scores.mean()), 6), len(scores))
