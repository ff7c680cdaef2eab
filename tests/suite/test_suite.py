import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dtbench.errors import DtbenchError, IncompatibleTask, InvalidSuite, InvalidValue, UnknownName
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.registry import make_task
from dtbench.suite.loading import read_document, read_yaml, select, suite_names
from dtbench.suite.planning import (
    _sweep,
    check,
    check_fit,
    contender_on,
    load_suite,
    narrow,
    parse_seeds,
    resolved_document,
    resolved_hyperparameters,
    trial_specs,
)
from dtbench.suite.schema import Contender
from tests.support.episodes import episodes

SUITE = {
    "name": "toy",
    "title": "Toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "evaluation": {"episodes": 5, "every": 2},
    "contenders": {
        "DT": {"algorithm": "dt", "train_steps": 4, "hyperparameters": {"hidden_size": 8, "learning_rate": "1e-3"}},
        "DT small": {"algorithm": "dt", "train_steps": 4, "hyperparameters": {"hidden_size": 4}},
        "Random": {"algorithm": "random", "train_steps": 0, "action_mode": "sample"},
    },
    "presets": {"tiny": {"contenders": {"*": {"train_steps": 1}, "Random": {"train_steps": 0}}}, "plain": None},
}


def written(folder: Path, **changes: object) -> str:
    (folder / "toy.yaml").write_text(json.dumps(SUITE | changes))
    return str(folder / "toy.yaml")


def test_every_shipped_suite_is_valid() -> None:
    assert {"key-to-door", "graph"} <= set(suite_names())
    for name in suite_names():
        for preset in (None, *read_document(name)["presets"]):
            load_suite(name, preset=preset)


def test_a_preset_reaches_every_contender_and_then_those_it_names(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path), preset="tiny")
    assert {name: c.train_steps for name, c in suite.contenders.items()} == {"DT": 1, "DT small": 1, "Random": 0}


def like(**settings: object) -> dict[str, object]:
    """Contenders of which "Other" is like "DT", whose settings on one task differ."""
    dt = {**SUITE["contenders"]["DT"], "by_task": {"key-*": {"train_steps": 8, "hyperparameters": {"dropout": 0.3}}}}  # type: ignore[index]
    return {"Other": {"like": "DT", **settings}, "DT": dt}


def test_a_contender_like_another_has_its_settings_but_for_its_own(tmp_path: Path) -> None:
    contenders = like(train_steps=2, hyperparameters={"hidden_size": 16})
    presets = {"plain": None, "large": {"contenders": {"DT": {"hyperparameters": {"num_layers": 5}}}}}
    path = written(tmp_path, contenders=contenders, presets=presets)
    other = contender_on(load_suite(path, preset="large").contenders["Other"], "key-to-door-1k")
    assert (other.algorithm, other.train_steps) == ("dt", 2), "its own steps hold on every task"
    assert other.hyperparameters == {"hidden_size": 16, "learning_rate": "1e-3", "num_layers": 5, "dropout": 0.3}
    changed = load_suite(path, preset="plain", overrides=["DT.dropout=0.5"]).contenders["Other"]
    assert contender_on(changed, "key-to-door-1k").hyperparameters["dropout"] == 0.3, (
        "an override is of the one it names"
    )


def test_a_contender_is_like_one_that_exists_and_in_no_circle(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="contender that 'Other' is like 'DTT'"):
        load_suite(written(tmp_path, contenders=like(like="DTT")), preset="plain")
    with pytest.raises(UnknownName, match=r"is like .*Did you mean 'DT'"):
        load_suite(written(tmp_path, contenders=like(like=["DT"])), preset="plain")
    for circle in ({"A": {"like": "A"}}, {"A": {"like": "B"}, "B": {"like": "A"}}):
        with pytest.raises(InvalidSuite, match="like each other: A -> "):
            load_suite(written(tmp_path, contenders=circle, presets={}))
    chain = load_suite(written(tmp_path, contenders={"Third": {"like": "Other"}, **like(train_steps=2)}, presets={}))
    assert chain.contenders["Third"].train_steps == 2


def test_a_preset_names_contenders_in_full(tmp_path: Path) -> None:
    presets = {"tiny": {"contenders": {"DT*": {"train_steps": 1}}}}
    with pytest.raises(UnknownName, match="contender of a preset 'DT\\*'"):
        load_suite(written(tmp_path, presets=presets))


def test_overrides_reach_suite_contender_and_hyperparameter(tmp_path: Path) -> None:
    suite = load_suite(
        written(tmp_path), preset="plain", overrides=["evaluation.episodes=7", "DT.hidden_size=16", "DT.train_steps=9"]
    )
    assert suite.evaluation.episodes == 7
    assert suite.contenders["DT"].hyperparameters["hidden_size"] == 16
    assert suite.contenders["DT"].train_steps == 9
    assert suite.contenders["DT small"].train_steps == 4


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("yes", "yes"), ("010", 10), ("[1, &a {b: 2}]", [1, {"b": 2}])]
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("0,2,5", [0, 2, 5]), ("3", [3]), ("0..1,1..2", [0, 1, 2])]
)
def test_seeds_are_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4..0", "0...3", "-1", "1.5"])
def test_seeds_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("changes", "overrides", "near"),
    [
        ({"tasks": ["key-to-dor-1k"]}, [], "key-to-door-1k"),
        ({"contender": {}}, [], "contenders"),
        ({"evaluation": {"episode": 3}}, [], "episodes"),
        ({"contenders": {"DT": {"algorithm": "dtt", "train_steps": 1}}}, [], "'dt'"),
        ({"contenders": {"DT": {"algorithm": "dt", "train_stepss": 1}}}, [], "train_steps"),
        ({}, ["DT.widht=3"], "hidden_size"),
        ({}, ["DT.headline_targt=3"], "headline_target"),
        ({}, ["DT.train_step=3"], "Did you mean 'train_steps'"),
        ({}, ["DT.train_step.x=3"], "Did you mean 'train_steps'"),
        ({}, ["evaluation.episods=3"], "episodes"),
        ({}, ["evaluatoin.episodes=3"], "evaluation"),
        ({}, ["DTT.hidden_size=3"], "DT"),
    ],
)
def test_a_mistyped_name_is_one_error_with_the_nearest(
    tmp_path: Path, changes: dict[str, object], overrides: list[str], near: str
) -> None:
    with pytest.raises(UnknownName, match=near):
        load_suite(written(tmp_path, **changes), preset="plain", overrides=overrides)


def test_unknown_suites_presets_and_contenders_name_what_exists(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="key-to-door"):
        load_suite("key-to-dor")
    with pytest.raises(UnknownName, match="tiny"):
        load_suite(written(tmp_path), preset="tini")
    with pytest.raises(UnknownName, match="Random"):
        narrow(load_suite(written(tmp_path)), contenders=["Randm"])


def test_several_names_may_have_commas_between_them(tmp_path: Path) -> None:
    whole = load_suite(written(tmp_path))
    assert list(narrow(whole, contenders=["Random, DT"]).contenders) == ["DT", "Random"]
    with pytest.raises(UnknownName, match="'Randm'"):
        narrow(whole, contenders=["DT,Randm"])
    assert select("task", ["a,b", "a", "c"], ["a,b"]) == ["a,b"], "a name with a comma is itself"


@pytest.mark.parametrize(
    ("suite", "override"), [("own-data", "file=x.hdf5"), ("own-data", "horizon=50"), ("d4rl", "physics=v4")]
)
def test_an_option_of_a_task_as_an_override_is_named_with_its_path(suite: str, override: str) -> None:
    with pytest.raises(InvalidValue, match=rf"option of a task. Write task_options\.{override}"):
        load_suite(suite, overrides=[override])


@pytest.mark.parametrize("tasks", ["5", "[5]", "null"])
def test_an_unknown_override_of_damaged_tasks_is_unknown(tmp_path: Path, tasks: str) -> None:
    with pytest.raises(UnknownName, match="unknown override 'file'"):
        load_suite(written(tmp_path), preset="plain", overrides=[f"tasks={tasks}", "file=x.hdf5"])


@pytest.mark.parametrize(
    "overrides",
    [["DT.hidden_size=wide"], ["DT.dropout=[1]"], ["evaluation.action_mode=best"], ["train_steps=-1"], ["nonsense"]],
)
def test_values_of_the_wrong_kind_are_refused(tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises(DtbenchError):
        load_suite(written(tmp_path), preset="plain", overrides=overrides)


@pytest.mark.parametrize("text", ["[", "- a\n- b\n", "", "tasks: 3\ncontenders: {}\nseeds: []", "\x00"])
def test_malformed_files_are_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InvalidSuite):
        load_suite(str(tmp_path / "bad.yaml"))


def test_a_key_depends_on_what_decides_the_outcome_and_not_on_labels(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path), preset="plain")
    spec = trial_specs(narrow(suite, contenders=["DT"]))[0]
    assert spec.labelled(suite="other", contender="Mine").key == spec.key
    changed = [
        load_suite(written(tmp_path), preset="plain", overrides=overrides)
        for overrides in (
            ["DT.hidden_size=16"],
            ["DT.train_steps=5"],
            ["evaluation.episodes=6"],
            ["evaluation.targets=[0.5]"],
        )
    ]
    keys = {trial_specs(narrow(other, contenders=["DT"]))[0].key for other in changed}
    assert len(keys | {spec.key}) == 5


def test_a_working_directory_may_hold_suites_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(json.dumps(SUITE | {"name": "mine"}))
    assert "mine" in suite_names()
    assert load_suite("mine").name == "mine"


TASK_FILE = """
import dataclasses
from dtbench import registry


def walks(steps: int = 0, physics: str = "d4rl"):
    task = registry.make_task("key-to-door-1k")
    return dataclasses.replace(task, name=f"walks {steps} {physics}")
"""

BC = {"algorithm": "bc", "train_steps": 4, "hyperparameter_preset": "corl", "hyperparameters": {"hidden_size": 8}}


def test_a_hyperparameter_preset_lies_under_the_contenders_own_differences(tmp_path: Path) -> None:
    contenders = {"BC": BC, "Wet": {**BC, "hyperparameters": {"dropout": 0.5}}}
    plain, wet = trial_specs(load_suite(written(tmp_path, contenders=contenders), preset="plain"))
    preset = {
        "num_layers": 2,
        "dropout": 0.0,
        "batch_size": 256,
        "learning_rate": 3e-4,
        "normalize_observations": True,
    }
    assert {key: plain.hyperparameters[key] for key in preset} == preset
    assert plain.hyperparameters["hidden_size"] == 8
    assert wet.hyperparameters["dropout"] == 0.5
    assert wet.hyperparameters["num_layers"] == 2


def test_an_unknown_hyperparameter_preset_names_the_nearest(tmp_path: Path) -> None:
    contenders = {"BC": {**BC, "hyperparameter_preset": "crol"}}
    with pytest.raises(UnknownName, match="Did you mean 'corl'"):
        load_suite(written(tmp_path, contenders=contenders), preset="plain")


def test_a_task_may_have_hyperparameters_of_its_own(tmp_path: Path) -> None:
    own = {
        "key-to-door-*": {"hyperparameters": {"hidden_size": 16, "context": 5}},
        "*-10k": {"hyperparameters": {"hidden_size": 32}},
    }
    contenders = {"DT": {**SUITE["contenders"]["DT"], "by_task": own}}  # type: ignore[index]
    suite = load_suite(
        written(tmp_path, contenders=contenders, tasks=["key-to-door-1k", "key-to-door-10k", "graph-0"]),
        preset="plain",
    )
    found = {spec.task: spec.hyperparameters for spec in trial_specs(suite)}
    assert [found[task]["hidden_size"] for task in suite.tasks] == [16, 32, 8]  # the later pattern wins
    assert [found[task]["context"] == 5 for task in suite.tasks] == [True, True, False]
    assert {spec["learning_rate"] for spec in found.values()} == {0.001}


def test_the_source_of_the_data_is_the_suites_or_the_commands(tmp_path: Path) -> None:
    assert load_suite(written(tmp_path), preset="plain").source == "auto"
    assert load_suite(written(tmp_path, source="generated"), preset="plain").source == "generated"
    assert load_suite(written(tmp_path, source="generated"), preset="plain", source="d4rl").source == "d4rl"
    assert load_suite(written(tmp_path), preset="plain", overrides=["source=d4rl"]).source == "d4rl"


def test_a_source_that_a_task_does_not_have_is_refused(tmp_path: Path) -> None:
    auto, generated = (
        trial_specs(load_suite(written(tmp_path), preset="plain", source=s)) for s in (None, "generated")
    )
    assert [spec.key for spec in auto] == [spec.key for spec in generated]
    with pytest.raises(UnknownName, match="generated"):
        trial_specs(load_suite(written(tmp_path), preset="plain", source="d4rl"))


def test_task_options_reach_the_task_and_belong_to_the_key(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK_FILE)
    path = written(tmp_path, tasks=["my_tasks:walks"], task_options={"steps": 10})
    keys = set()
    for overrides in ([], ["task_options.steps=20"], ["task_options.physics=v4"]):
        spec = trial_specs(load_suite(path, preset="plain", overrides=overrides))[0]
        keys.add(spec.key)
    assert spec.task_options == {"steps": 10, "physics": "v4"}
    without = trial_specs(load_suite(written(tmp_path, tasks=["my_tasks:walks"]), preset="plain"))[0]
    assert without.task_options == {}
    assert len(keys | {without.key}) == 4


def test_an_option_that_a_task_does_not_take_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK_FILE)
    path = written(tmp_path, tasks=["my_tasks:walks"], task_options={"physic": "v4"})
    with pytest.raises(UnknownName, match="Did you mean 'physics'"):
        trial_specs(load_suite(path, preset="plain"))


def test_the_sweep_goes_evenly_from_nothing_to_half_as_much_again_as_the_datas_best(tmp_path: Path) -> None:
    # The best walk of Key-to-Door returns 1: 0 to 1.5 in four steps, to one decimal.
    evaluation = {"episodes": 5, "every": 2, "sweep": 4, "targets": [1.0]}
    swept = trial_specs(load_suite(written(tmp_path, evaluation=evaluation), preset="plain"))[0]
    assert swept.evaluation.sweep == (0.0, 0.5, 1.0, 1.5)
    assert swept.evaluation.targets == (1.0,)
    evaluation.pop("sweep")
    plain = trial_specs(load_suite(written(tmp_path, evaluation=evaluation), preset="plain"))[0]
    assert plain.evaluation.sweep == ()
    assert swept.key != plain.key


@pytest.mark.parametrize(("best", "size"), [(-0.005, 9), (0.3, 9), (1e-7, 5), (8.0, 40), (0.0, 3)])
def test_the_sweep_of_small_returns_keeps_its_targets_apart(best: float, size: int) -> None:
    low = -0.02 if best < 0 else 0.0
    targets = _sweep(episodes([1, 1], [low, best], [True, True]), size)
    assert len(targets) == (size if best else 1)
    even = np.linspace(low, low + 1.5 * (best - low), size)
    np.testing.assert_allclose(targets, even if best else [0], atol=abs(even[1] - even[0]) / 100)


def test_the_sweep_of_large_returns_has_one_decimal() -> None:
    targets = _sweep(episodes([1, 1], [0.0, 2399.53], [True, True]), 13)
    assert targets[-1] == 3599.3
    assert all(round(target, 1) == target for target in targets)


def test_a_default_preset_must_exist(tmp_path: Path) -> None:
    assert load_suite(written(tmp_path)).preset == "tiny"  # the first
    assert load_suite(written(tmp_path, default_preset="plain")).preset == "plain"
    with pytest.raises(UnknownName, match="tiny"):
        load_suite(written(tmp_path, default_preset="tini"))


def test_a_contender_that_does_not_fit_a_task_is_named_before_anything_runs(tmp_path: Path) -> None:
    contenders = {**SUITE["contenders"], "TD3+BC": {"algorithm": "td3_bc", "train_steps": 1}}  # type: ignore[dict-item]
    suite = load_suite(written(tmp_path, contenders=contenders), preset="plain")
    with pytest.raises(IncompatibleTask, match=r"TD3\+BC on key-to-door-1k"):
        check_fit(trial_specs(suite))
    fitting = narrow(suite, contenders=["DT*", "Random"])
    check_fit(trial_specs(fitting))


def test_the_resolved_suite_says_where_its_data_comes_from_and_what_its_tasks_were_given(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, source="generated"), preset="plain")
    document = resolved_document(suite, trial_specs(suite))
    assert (document["source"], document["task_options"]) == ("generated", {})
    assert {trial["dataset_source"] for trial in document["trials"]} == {"generated"}


def test_a_suite_takes_from_its_base_what_it_does_not_say() -> None:
    Path("upper.yaml").write_text(
        "base: key-to-door\ntitle: Mine\n"
        "contenders: {BC: {}, DT: {train_steps: 7}, New: {algorithm: random, train_steps: 0}}\n"
        "presets: {cpu: {seeds: [5]}}\n"
    )
    made, base = load_suite("upper.yaml", preset="cpu"), load_suite("key-to-door", preset="cpu")
    assert made.name == "upper"
    assert made.tasks == base.tasks
    assert list(made.contenders) == ["BC", "DT", "New"]  # of the base's contenders only those listed
    assert made.contenders["BC"] == base.contenders["BC"]
    assert made.contenders["DT"].train_steps == 7
    assert made.contenders["DT"].hyperparameters == base.contenders["DT"].hyperparameters
    assert made.seeds == [5]
    assert not made.published  # a comparison belongs to the suite that makes it
    assert load_suite("upper.yaml", preset="smoke").tasks == ["key-to-door-1k"]  # a preset of the base's


def test_a_suite_cannot_be_its_own_base() -> None:
    Path("mine.yaml").write_text("base: mine\n")
    with pytest.raises(InvalidSuite, match="base 'mine' must be another suite"):
        load_suite("mine.yaml")


def test_every_shipped_suite_and_preset_is_sound() -> None:
    for name in suite_names():
        for preset in ("cpu", "smoke"):
            check(load_suite(name, preset=preset))


def test_an_algorithm_in_a_file_is_begun_by_its_trial_alone(tmp_path: Path) -> None:
    Path("deadly.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Deadly:\n"
        "    def learner(self, dataset, *, seed, device):\n        raise SystemExit(3)\n"
    )
    contenders = {"Deadly": {"algorithm": "deadly:Deadly", "train_steps": 1}}
    suite = load_suite(written(tmp_path, contenders=contenders), preset="plain")
    check_fit(trial_specs(suite))


DT = {"algorithm": "dt", "train_steps": 4, "hyperparameters": {"hidden_size": 8, "context": 3}}
TASKS = ["key-to-door-1k", "graph-0"]


def specs_by_task(path: str, overrides: Sequence[str] = ()) -> dict[str, TrialSpec]:
    return {spec.task: spec for spec in trial_specs(load_suite(path, preset="plain", overrides=overrides))}


def test_a_contender_may_be_otherwise_on_some_tasks(tmp_path: Path) -> None:
    own = {
        "graph-*": {"train_steps": 9, "eval_interval": 3, "action_mode": "sample", "hyperparameters": {"context": 5}}
    }
    path = written(tmp_path, tasks=TASKS, contenders={"DT": {**DT, "by_task": own}})
    there, here = specs_by_task(path).values()
    assert (there.train_steps, there.evaluation.every, there.evaluation.action_mode) == (4, 2, "greedy")
    assert (here.train_steps, here.evaluation.every, here.evaluation.action_mode) == (9, 3, "sample")
    assert [spec.hyperparameters["context"] for spec in (there, here)] == [3, 5]
    assert [spec.hyperparameters["hidden_size"] for spec in (there, here)] == [8, 8]  # laid over the contender's own


def test_the_last_pattern_that_fits_a_task_counts(tmp_path: Path) -> None:
    by_task = {
        "*": {"train_steps": 5, "hyperparameters": {"hidden_size": 16}},
        "graph-0": {"hyperparameters": {"hidden_size": 32}},
    }
    path = written(tmp_path, tasks=TASKS, contenders={"DT": {**DT, "by_task": by_task}})
    found = specs_by_task(path)
    assert [(spec.train_steps, spec.hyperparameters["hidden_size"]) for spec in found.values()] == [(5, 16), (5, 32)]


def test_another_algorithm_keeps_no_hyperparameters_of_the_first(tmp_path: Path) -> None:
    by_task = {"graph-0": {"algorithm": "discrete_cql", "hyperparameters": {"alpha": 0.5}}}
    contender = {**DT, "hyperparameter_preset": "code"}
    path = written(tmp_path, tasks=TASKS, contenders={"Mine": {**contender, "by_task": by_task}})
    found = specs_by_task(path)["graph-0"]
    defaults = resolved_hyperparameters(Contender(algorithm="discrete_cql", train_steps=4))
    assert found.algorithm == "discrete_cql"
    assert found.train_steps == 4
    assert found.hyperparameters == {**defaults, "alpha": 0.5}


def test_the_same_algorithm_named_again_keeps_its_hyperparameters(tmp_path: Path) -> None:
    by_task = {"graph-0": {"algorithm": "dt", "hyperparameter_preset": "paper", "hyperparameters": {"context": 5}}}
    path = written(tmp_path, tasks=TASKS, contenders={"DT": {**DT, "by_task": by_task}})
    found = {task: spec.hyperparameters for task, spec in specs_by_task(path).items()}
    assert (found["graph-0"]["hidden_size"], found["graph-0"]["context"]) == (8, 5)
    assert [found[task]["warmup_steps"] for task in TASKS] == [10_000, 100_000]


def test_null_takes_back_what_a_contender_says_of_its_evaluation(tmp_path: Path) -> None:
    contender = {**DT, "eval_interval": 1, "by_task": {"graph-0": {"eval_interval": None}}}
    found = specs_by_task(written(tmp_path, tasks=TASKS, contenders={"DT": contender}))
    assert [found[task].evaluation.every for task in TASKS] == [1, 2]


@pytest.mark.parametrize(
    ("differences", "near"),
    [
        ({"graph-0": {"train_stepss": 3}}, "train_steps"),
        ({"graph-0": {"by_task": {}}}, "key"),
        ({"graph-0": {"hyperparameters": {"widht": 3}}}, "hidden_size"),
        ({"graph-0": {"algorithm": "discrete_cqll"}}, "discrete_cql"),
        ({"graph-0": {"algorithm": "discrete_cql", "hyperparameters": {"timestep_std": 1.0}}}, "timestep_std"),
        ({"graf-*": {"train_steps": 3}}, "graf"),
    ],
)
def test_a_mistake_in_what_is_said_of_some_tasks_is_one_error(
    tmp_path: Path, differences: dict[str, object], near: str
) -> None:
    path = written(tmp_path, tasks=TASKS, contenders={"DT": {**DT, "by_task": differences}})
    with pytest.raises(UnknownName, match=near):
        load_suite(path, preset="plain")


def test_values_that_cannot_be_are_refused_where_they_are_said_of_some_tasks(tmp_path: Path) -> None:
    for differences in ({"train_steps": None}, {"train_steps": -1}, {"action_mode": "best"}):
        contenders = {"DT": {**DT, "by_task": {"graph-0": differences}}}
        path = written(tmp_path, tasks=TASKS, contenders=contenders)
        with pytest.raises(InvalidSuite, match="graph-0"):
            load_suite(path, preset="plain")


def test_a_pattern_for_tasks_that_a_preset_leaves_out_is_no_mistake(tmp_path: Path) -> None:
    contenders = {"DT": {**DT, "by_task": {"graph-*": {"train_steps": 3}, "my_tasks:far": {"train_steps": 3}}}}
    presets = {"narrow": {"tasks": ["key-to-door-1k"]}}
    suite = load_suite(written(tmp_path, tasks=TASKS, contenders=contenders, presets=presets), preset="narrow")
    assert [spec.train_steps for spec in trial_specs(suite)] == [4]


def test_some_tasks_may_be_judged_and_made_otherwise(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK_FILE)
    by_task = {
        "*": {"evaluation": {"every": 3}},
        "my_tasks:*": {"task_options": {"steps": 10}, "evaluation": {"episodes": 7, "targets": [0.5]}},
    }
    path = written(tmp_path, tasks=["key-to-door-1k", "my_tasks:walks"], contenders={"DT": DT}, by_task=by_task)
    there, here = specs_by_task(path).values()
    assert (there.evaluation.episodes, there.evaluation.every, there.evaluation.targets) == (5, 3, (1.0,))
    assert (here.evaluation.episodes, here.evaluation.every, here.evaluation.targets) == (7, 3, (0.5,))
    assert [spec.task_options for spec in (there, here)] == [{}, {"steps": 10}]
    check_fit([there, here])  # opens each task with its own options


def test_options_of_some_tasks_lie_over_those_of_all(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK_FILE)
    by_task = {"my_tasks:walks": {"task_options": {"steps": 20}}}
    options = {"steps": 10, "physics": "v4"}
    suite = load_suite(written(tmp_path, tasks=["my_tasks:walks"], task_options=options, by_task=by_task))
    assert suite.options_of("my_tasks:walks") == {"steps": 20, "physics": "v4"}
    assert suite.options_of("another") == options


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"evaluation": {"episode": 3}}, "episodes"),
        ({"task_option": {}}, "task_options"),
        ({"contenders": {}}, "evaluation"),
    ],
)
def test_a_mistyped_setting_of_some_tasks_names_what_exists(
    tmp_path: Path, settings: dict[str, object], near: str
) -> None:
    with pytest.raises(UnknownName, match=near):
        load_suite(written(tmp_path, by_task={"key-*": settings}), preset="plain")


def test_what_the_command_line_asks_for_goes_over_what_is_said_of_some_tasks(tmp_path: Path) -> None:
    contender = {
        **DT,
        "by_task": {"graph-0": {"train_steps": 9, "hyperparameters": {"hidden_size": 16, "dropout": 0.3}}},
    }
    by_task = {"graph-0": {"evaluation": {"episodes": 7}}}
    path = written(tmp_path, tasks=TASKS, contenders={"DT": contender}, by_task=by_task)
    asked = ["train_steps=2", "evaluation.episodes=3", "DT.hidden_size=4", "DT.dropout=0.5"]
    for spec in specs_by_task(path, asked).values():
        assert (spec.train_steps, spec.evaluation.episodes) == (2, 3)
        assert (spec.hyperparameters["hidden_size"], spec.hyperparameters["dropout"]) == (4, 0.5)
    one = specs_by_task(path, ["DT.by_task.graph-0.train_steps=1", "by_task.graph-0.evaluation.episodes=6"])
    assert [(spec.train_steps, spec.evaluation.episodes) for spec in one.values()] == [(4, 5), (1, 6)]


def test_an_override_leaves_alone_what_shares_an_alias_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(
        "tasks: [key-to-door-1k]\nseeds: [0]\n"
        "contenders: {DT: &own {algorithm: dt, train_steps: 1, hyperparameters: {hidden_size: 8}}, Other: *own}\n"
    )
    suite = load_suite(str(tmp_path / "toy.yaml"), overrides=["DT.hidden_size=4"])
    assert [found.hyperparameters for found in suite.contenders.values()] == [{"hidden_size": 4}, {"hidden_size": 8}]


def test_a_narrowed_suite_has_the_same_trials_as_the_whole(tmp_path: Path) -> None:
    own = {"graph-*": {"algorithm": "discrete_cql", "train_steps": 9}}
    by_task = {"graph-0": {"evaluation": {"episodes": 7}}}
    contenders = {"DT": DT, "Mine": {**DT, "by_task": own}}
    suite = load_suite(written(tmp_path, tasks=TASKS, contenders=contenders, by_task=by_task), preset="plain")
    whole = {(spec.task, spec.contender): spec.key for spec in trial_specs(suite)}
    narrowed = trial_specs(narrow(suite, tasks=["graph-0"], contenders=["Mine"]))
    assert [spec.key for spec in narrowed] == [whole["graph-0", "Mine"]]


def test_the_resolved_suite_says_what_is_otherwise_on_some_tasks(tmp_path: Path) -> None:
    contenders = {"DT": {**DT, "by_task": {"graph-0": {"train_steps": 9}}}}
    by_task = {"graph-0": {"evaluation": {"episodes": 7}}}
    suite = load_suite(written(tmp_path, tasks=TASKS, contenders=contenders, by_task=by_task), preset="plain")
    document = resolved_document(suite, trial_specs(suite))
    assert document["contenders"]["DT"]["by_task"] == {"graph-0": {"train_steps": 9}}
    assert document["by_task"] == {"graph-0": {"evaluation": {"episodes": 7}}}
    assert [trial["train_steps"] for trial in document["trials"]] == [4, 9]


def test_a_sweep_of_negative_returns_begins_at_the_datas_lowest(tmp_path: Path) -> None:
    # The graph's walks return -10 to -1: 13.5 upwards from -10 in three steps.
    evaluation = {"episodes": 1, "every": 2, "sweep": 4}
    found = specs_by_task(written(tmp_path, tasks=["graph-0"], contenders={"DT": DT}, evaluation=evaluation))
    assert found["graph-0"].evaluation.sweep == (-10.0, -5.5, -1.0, 3.5)


def test_targets_may_depend_on_the_data(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASK_FILE.replace("name=f", "targets_of=lambda data: (7.5,), name=f"))
    path = written(tmp_path, tasks=["my_tasks:walks"], contenders={"DT": DT})
    assert specs_by_task(path)["my_tasks:walks"].evaluation.targets == (7.5,)
    assert specs_by_task(path, ["evaluation.targets=[1]"])["my_tasks:walks"].evaluation.targets == (1.0,)


def test_actions_may_be_epsilon_greedy(tmp_path: Path) -> None:
    path = written(tmp_path, contenders={"DT": {**DT, "action_mode": "epsilon_greedy"}})
    assert specs_by_task(path)["key-to-door-1k"].evaluation.action_mode == "epsilon_greedy"


def test_every_task_of_the_demo_takes_generated_data() -> None:
    suite = load_suite("demo", source="generated")
    tasks = {name: make_task(name, suite.options_of(name)) for name in suite.tasks}
    walks = tasks.pop("key-to-door-1k")  # has one way to its data, whose own name is "generated"
    assert walks.open(walks.resolve(suite.source)).info["source"] == "generated"
    for task in tasks.values():
        assert "generated" in [source.name for source in task.sources]
