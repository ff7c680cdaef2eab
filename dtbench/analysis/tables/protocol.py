"""What a report says besides its results: protocol, data, contenders, software; and what a section is."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dtbench.analysis.published import VERDICT_RULE
from dtbench.analysis.results import SuiteResults, contenders, order_of
from dtbench.analysis.statistics import success_interval
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number_cell
from dtbench.errors import abridged
from dtbench.ledger.store import TrialRecord, Unfinished
from dtbench.ledger.trial_spec import EPSILON, TrialState

SMOKE = "SMOKE: numbers mean nothing. The smoke preset only shows that everything runs."

INTERVAL_RULE = (
    "Intervals of a mean are Student's t, 95 %, over training seeds, and over the draws' means where tasks are draws "
    "of the same data. Those of other aggregates over tasks, of probabilities and of achieved against target return "
    "are percentile bootstraps (2000 resamples, fixed seed), which with few seeds are too narrow."
)

# Long lists inside a data recipe are drawn, not printed.
_DRAWN = ("walk_steps_to_goal", "shortest_steps", "edges", "policy_returns")


def protocol(results: SuiteResults, finals: pd.DataFrame) -> tuple[str, ...]:
    """Return paragraphs on how the numbers came about and which of them count."""
    specs = [record.spec for record in results.records]
    every = _listed({spec.evaluation.every for spec in specs})
    episodes = _listed({spec.evaluation.episodes for spec in specs})
    evaluation = (
        f"Evaluation: {episodes} episodes for each target return, every {every} gradient steps and after the last "
        "one. All contenders play the same episodes, from the same environment seeds."
    )
    return (
        evaluation,
        "The last checkpoint of each trial counts. This was fixed beforehand; no best checkpoint is picked anywhere "
        "but in the table of scoring rules, which shows what picking would change.",
        *_targets(results, finals),
        *_action_modes(results.records),
        INTERVAL_RULE,
        VERDICT_RULE,
    )


def data_table(results: SuiteResults) -> Table:
    """Return where each task's data came from, and what is in it."""
    order = order_of(results)
    records = sorted(results.records, key=lambda record: (order(record.spec.task), record.spec.dataset_digest))
    rows = {(record.spec.task, record.spec.dataset_digest): _data_row(record) for record in records}
    names = ("Task", "Source", "Digest", "Episodes", "Steps", "Mean return", "Best return", "Mean length")
    details = (Column("Options"), Column("Recipe", shown=False))
    columns = (*(Column(name, number=name in names[3:]) for name in names), *details)
    return Table("data", "Data that the contenders learned from", columns, tuple(rows.values()))


def task_table(results: SuiteResults, tasks: Sequence[str]) -> Table:
    """Return what each of these tasks asks and how it is scored."""
    about = {record.spec.task: record.provenance.get("task") or {} for record in results.records}
    rows = []
    for task in tasks:
        facts = about.get(task, {})
        rows.append((Cell(task), _text(facts.get("description")), _text(facts.get("score_name"))))
    return Table("tasks", "Tasks", (Column("Task"), Column("What it asks"), Column("Score")), tuple(rows))


def headings(
    results: SuiteResults, averages: Mapping[str, Sequence[str]], score_names: Mapping[str, str]
) -> dict[str, str]:
    """Return each task and average with the source of its data and the options it was made with.

    `score_names` are those that must be shown: of tasks that stand beside tasks of another scale.
    """
    found = {}
    for name, over in {**{record.spec.task: (record.spec.task,) for record in results.records}, **averages}.items():
        specs = [record.spec for record in results.records if record.spec.task in over]
        sources = _listed({spec.dataset_source for spec in specs})
        made_with = sorted({fact for spec in specs for fact in _options(spec.task_options)})
        if specs:
            score = [f"score: {score_names[name]}"] if name in score_names else []
            found[name] = f"{name} ({'; '.join([*score, f'data: {sources}', *made_with])})"
    return found


def contender_table(results: SuiteResults) -> Table:
    """Return who took part, and with which budget."""
    rows = []
    for name, asked in contenders(results).items():
        own = [record for record in results.records if record.spec.contender == name]
        ran = (
            _listed({record.spec.algorithm for record in own}),
            _listed({record.spec.train_steps for record in own}),
            _listed({record.result.get("parameters") for record in own} - {None}),
            _listed({record.result.get("action_mode") or DASH for record in own}),
        )
        lost = sum(trial.state == TrialState.DIVERGED for trial in results.unfinished if trial.spec.contender == name)
        count = f"{len(own)}, {lost} {TrialState.DIVERGED}" if lost else str(len(own)) if own else "0, not run"
        finished = Cell(count, len(own), kind="" if own else "hole")
        rows.append((Cell(name), *(map(_text, ran)), finished, _text(asked.get("description"))))
    names = ("Contender", "Algorithm", "Gradient steps", "Parameters", "Actions", "Trials finished", "Description")
    columns = tuple(Column(name, number=name in ("Gradient steps", "Parameters")) for name in names)
    return Table("contenders", "Contenders as they ran", columns, tuple(rows))


def hyperparameter_table(results: SuiteResults) -> Table:
    """Return every hyperparameter of every contender as it ran, defaults included."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for record in results.records:
        for name, value in _flat(record.spec.hyperparameters):
            tasks = found.setdefault((record.spec.contender, name), {}).setdefault(value, set())
            tasks.add(record.spec.task)
    names = {
        contender: sorted(name for owner, name in found if owner == contender) for contender in contenders(results)
    }
    rows = [
        (Cell(contender), Cell(name), Cell(_by_task(found[contender, name])))
        for contender, own in names.items()
        for name in own
    ]
    columns = (Column("Contender"), Column("Hyperparameter"), Column("Value"))
    return Table("hyperparameters", "Hyperparameters as they ran, defaults included", columns, tuple(rows))


def seed_table(finals: pd.DataFrame, score_names: Mapping[str, str]) -> Table:
    """Return the final score of every trial, with the noise of evaluating it where episodes either succeed or fail.

    `score_names` are those that must be shown, as in `headings`.
    """
    rows = [
        (
            *(Cell(row["task"]), Cell(row["contender"]), Cell(str(row["seed"]), int(row["seed"]))),
            *(number_cell(row["score"]), *_evaluation_noise(row["successes"], row["episodes"])),
            *(Cell(str(row["episodes"]), int(row["episodes"])), number_cell(row["return_mean"], 2)),
            *(number_cell(row["length_mean"]), Cell(str(row["step"]), int(row["step"]))),
            *(number_cell(row["target"], 2), Cell(row["dataset_source"])),
            Cell(row["trial"], link=f"trial-{row['trial']}"),
        )
        for row in finals.to_dict("records")
    ]
    names = ("Task", "Contender", "Seed", "Score", "95% low", "95% high", "Episodes", "Mean return", "Mean length")
    columns = [Column(name, number=name not in names[:2]) for name in names]
    columns += [Column("Step", number=True), Column("Target", number=True), Column("Data"), Column("Trial")]
    note = (
        "95 %: Wilson interval of the success rate over the episodes of this one trial; only for scores of 0 or 100."
    )
    listed = "; ".join(f"{task}: {name}" for task, name in score_names.items())
    notes = (f"Scores. {listed}.", note) if listed else (note,)
    return Table("seeds", "Final score of every trial", tuple(columns), tuple(rows), notes)


def not_run_table(results: SuiteResults, broken: Sequence[TrialRecord] = ()) -> Table:
    """Return planned trials without a number, with the reason; `broken` are those that scored NaN."""
    order = order_of(results)
    found = [(trial.spec, _why_not_run(trial)) for trial in results.unfinished]
    found += [(record.spec, "its score is NaN") for record in broken]
    found.sort(key=lambda one: order(one[0].task, one[0].contender, one[0].seed))
    rows = [
        (
            *(Cell(spec.task), Cell(spec.contender), Cell(str(spec.seed), spec.seed), Cell(why, kind="hole")),
            Cell(spec.key, link=f"trial-{spec.key}"),
        )
        for spec, why in found
    ]
    columns = (Column("Task"), Column("Contender"), Column("Seed", number=True), Column("Why"), Column("Trial"))
    return Table("not-run", "Planned, but without a number", columns, tuple(rows))


def _why_not_run(trial: Unfinished) -> str:
    words = {"missing": "never began", "interrupted": "began and did not end"}
    last = [line.rpartition(f"{TrialState.DIVERGED}: ")[2] for line in trial.error.strip().splitlines()[-1:]]
    cause = f" ({trial.cause})" if trial.cause not in ("", "crash", trial.state) else ""
    return words.get(trial.state) or ": ".join([trial.state + cause, *last])


def software_table(records: Sequence[TrialRecord]) -> Table:
    """Return commit, device and versions, with the number of trials that ran with each."""
    counts = Counter(fact for record in records for fact in _software(record.provenance))
    rows = [(Cell(what), Cell(which), Cell(str(n), n)) for (what, which), n in sorted(counts.items())]
    columns = (Column("What"), Column("Which"), Column("Trials", number=True))
    return Table("software", "Software and hardware of the finished trials", columns, tuple(rows))


def _targets(results: SuiteResults, finals: pd.DataFrame) -> Iterator[str]:
    asked = {record.spec.task: record.spec.evaluation.targets for record in results.records}
    swept = max((len(record.spec.evaluation.sweep) for record in results.records), default=0)
    used = dict(list(finals.dropna(subset=["target"]).groupby("task")[["contender", "target"]]))
    if used:
        listed = "; ".join(
            f"{task}: {_used(rows)} (all asked: {_listed(asked[task], ordered=True)})" for task, rows in used.items()
        )
        yield (
            "Target return: tables and curves use the first target that the suite lists for a task, or the one that "
            f"it states for a contender (headline_target). {listed}. The others are in the figures of achieved "
            "against target return."
        )
    if swept:
        yield (
            f"The last checkpoint of each return-conditioned contender was also asked for a sweep of up to {swept} "
            "further targets. They are in the figures of achieved against target return and count nowhere else."
        )


def _action_modes(records: Iterable[TrialRecord]) -> Iterator[str]:
    modes: dict[str, set[str]] = {}
    for record in records:
        if record.result.get("action_mode"):
            modes.setdefault(record.result["action_mode"], set()).add(record.spec.contender)
    if modes:
        words = {"epsilon_greedy": f"greedy, but with probability {EPSILON:g} any action, as Dopamine evaluates"}
        yield f"Actions: {'; '.join(f'{words.get(mode, mode)}: {_listed(modes[mode])}' for mode in sorted(modes))}."


def _data_row(record: TrialRecord) -> tuple[Cell, ...]:
    dataset = record.provenance.get("dataset") or {}
    card = dataset.get("card") or {}
    counts = [number_cell(card.get(name), 0) for name in ("episodes", "steps")]
    returns = [number_cell(card.get(name), 2) for name in ("return_mean", "return_max")]
    info = {name: value for name, value in (dataset.get("info") or {}).items() if name not in (*_DRAWN, "source")}
    recipe = "; ".join(f"{name}: {value}" for name, value in _flat(info))
    names = (Cell(record.spec.task), Cell(record.spec.dataset_source), Cell(record.spec.dataset_digest[:16]))
    options = "; ".join(_options(record.spec.task_options))
    return (*names, *counts, *returns, number_cell(card.get("length_mean")), _text(options), _text(recipe))


def _options(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in _flat(options)]


def _evaluation_noise(successes: float, episodes: int) -> tuple[Cell, Cell]:
    if pd.isna(successes):
        return hole(), hole()
    noise = success_interval(int(successes), int(episodes))
    return number_cell(noise.low), number_cell(noise.high)


def _software(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for what in ("commit", "device"):
        yield what, str(provenance.get(what) or "not recorded")
    for name, version in (provenance.get("versions") or {}).items():
        yield f"version of {name}", str(version)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(abridged(value))


def _used(rows: pd.DataFrame) -> str:
    """Return the target of a task's rows, or those of each contender where they differ."""
    by_contender = rows.groupby("contender", sort=False)["target"].agg(lambda targets: _listed(sorted(set(targets))))
    if by_contender.nunique() == 1:
        return str(by_contender.iloc[0])
    return ", ".join(f"{target} for {contender}" for contender, target in by_contender.items())


def _by_task(values: Mapping[str, set[str]]) -> str:
    """Return the value, or each value with its tasks where they differ."""
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({_listed(tasks)})" for value, tasks in sorted(values.items()))


def _listed(values: Iterable[Any], *, ordered: bool = False) -> str:
    items = list(values) if ordered else sorted(values)
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in items)


def _text(text: Any) -> Cell:
    return Cell(str(text)) if text else hole()
