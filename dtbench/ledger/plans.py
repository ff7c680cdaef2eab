"""What a suite keeps of its earlier plans: the newest configuration of a contender has its row."""

from collections.abc import Collection, Mapping
from typing import Any

from dtbench.ledger.trial_spec import TrialSpec

Document = Mapping[str, Any]
_CONTENDER = ("algorithm", "hyperparameters", "train_steps", "by_task", "action_mode", "eval_interval")


def same_contender(document: Document, earlier: Document, label: str) -> bool:
    """Return whether two plans of a suite say the same of a contender; one that only one of them has is the same."""
    ours, theirs = (plan["contenders"].get(label) for plan in (document, earlier))
    return None in (ours, theirs) or all(ours.get(name) == theirs.get(name) for name in _CONTENDER)


def with_earlier(document: Document, earlier: Document, ended: Collection[str]) -> dict[str, Any]:
    """Return a new plan of a suite with the trials of its earlier plans.

    `trials` has one configuration of each task and contender: that of the new plan, or of the last one that had them.
    `superseded` has the trials of all others. Trials that have not `ended` (keys) stay where only a
    selection of tasks and contenders differs.
    """
    names = ("preset", "overrides", "contenders", "evaluation")
    alike = all(earlier.get(name) == document[name] for name in names)
    trials = {(trial["contender"], trial["key"]): trial for trial in document["trials"]}  # equal contenders share keys
    follows = _Follows(document, earlier)
    kept: dict[tuple[str, str], Mapping[str, Any]] = {}
    superseded: dict[tuple[str, str], Mapping[str, Any]] = {}
    for part in ("trials", "superseded"):
        for trial in earlier.get(part, ()):
            spec = TrialSpec.from_json(trial)
            stays = spec.key in ended or (alike and spec.seed in document["seeds"])
            if stays and (spec.contender, spec.key) not in trials:
                place = kept if follows(spec, current=part == "trials") else superseded
                place[spec.contender, spec.key] = spec.to_json()
    return {
        **document,
        "trials": [*kept.values(), *trials.values()],
        "superseded": [trial for trial in superseded.values() if trial["key"] in ended],
        "seeds": sorted({*document["seeds"], *(trial["seed"] for trial in kept.values())}),
        "tasks": list(dict.fromkeys([*document["tasks"], *(trial["task"] for trial in kept.values())])),
        "contenders": _contenders(document, earlier, {trial["contender"] for trial in kept.values()}),
    }


class _Follows:
    """Decides whether an earlier trial belongs beside those of a new plan."""

    def __init__(self, document: Document, earlier: Document) -> None:
        specs = [TrialSpec.from_json(trial) for trial in document["trials"]]
        self.document, self.earlier = document, earlier
        self.cells = {(spec.task, spec.contender): spec.cell for spec in specs}
        self.tasks = {spec.task: spec.task_identity for spec in specs}
        self.versions = {(spec.contender, spec.algorithm): spec.algorithm_version for spec in specs}

    def __call__(self, spec: TrialSpec, *, current: bool) -> bool:
        if (spec.task, spec.contender) in self.cells:
            return self.cells[spec.task, spec.contender] == spec.cell
        version = self.versions.get((spec.contender, spec.algorithm), spec.algorithm_version)
        return (
            current
            and self.document["preset"] == self.earlier.get("preset")
            and self.tasks.get(spec.task, spec.task_identity) == spec.task_identity
            and version == spec.algorithm_version
            and same_contender(self.document, self.earlier, spec.contender)
        )


def _contenders(document: Document, earlier: Document, kept: Collection[str]) -> dict[str, Any]:
    """Return what both plans say of contenders; a variant comes after those that were there before."""
    ours = document["contenders"]
    theirs = {label: settings for label, settings in earlier.get("contenders", {}).items() if label in kept}
    return {**ours} if set(theirs) <= set(ours) else {**theirs, **ours}
