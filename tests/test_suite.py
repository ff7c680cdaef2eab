from pathlib import Path

import pytest
import yaml

from dtbench.errors import DtbenchError, InvalidSuite, InvalidValue, UnknownName
from dtbench.suite import load_suite, narrow, parse_seeds, suite_names, trial_specs

SUITE = {
    "name": "toy",
    "title": "Toy",
    "tasks": ["key-to-door-1k"],
    "seeds": [0],
    "evaluation": {"episodes": 5, "every": 2},
    "contenders": {
        "DT": {"algorithm": "dt", "budget": 4, "hyperparameters": {"width": 8, "learning_rate": "1e-3"}},
        "DT small": {"algorithm": "dt", "budget": 4, "hyperparameters": {"width": 4}},
        "Random": {"algorithm": "random", "budget": 0, "action_mode": "sample"},
    },
    "presets": {"tiny": {"contenders": {"DT*": {"budget": 1}}}, "plain": None},
}


def written(folder: Path, **changes: object) -> str:
    (folder / "toy.yaml").write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return str(folder / "toy.yaml")


def test_every_shipped_suite_is_valid() -> None:
    assert {"key-to-door", "graph"} <= set(suite_names())
    for name in suite_names():
        presets = yaml.safe_load((Path(__file__).parents[1] / "sweeps" / f"{name}.yaml").read_text()).get(
            "presets", {}
        )
        for preset in (None, *presets):
            load_suite(name, preset=preset)


def test_a_preset_reaches_contenders_by_pattern(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path), preset="tiny")
    assert {name: c.budget for name, c in suite.contenders.items()} == {"DT": 1, "DT small": 1, "Random": 0}


def test_overrides_reach_suite_contender_and_hyperparameter(tmp_path: Path) -> None:
    suite = load_suite(
        written(tmp_path), preset="plain", overrides=["evaluation.episodes=7", "DT.width=16", "DT.budget=9"]
    )
    assert suite.evaluation.episodes == 7
    assert suite.contenders["DT"].hyperparameters["width"] == 16
    assert suite.contenders["DT"].budget == 9
    assert suite.contenders["DT small"].budget == 4


def test_numbers_that_yaml_takes_for_text_become_numbers(tmp_path: Path) -> None:
    spec = trial_specs(load_suite(written(tmp_path), preset="plain"))[0]
    assert spec.hyperparameters["learning_rate"] == 0.001


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
        ({"contenders": {"DT": {"algorithm": "dtt", "budget": 1}}}, [], "'dt'"),
        ({"contenders": {"DT": {"algorithm": "dt", "budgett": 1}}}, [], "budget"),
        ({}, ["DT.widht=3"], "width"),
        ({}, ["evaluation.episods=3"], "episodes"),
        ({}, ["evaluatoin.episodes=3"], "evaluation"),
        ({}, ["DTT.width=3"], "DT"),
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


@pytest.mark.parametrize(
    "overrides", [["DT.width=wide"], ["DT.dropout=[1]"], ["evaluation.action_mode=best"], ["budget=-1"], ["nonsense"]]
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
        for overrides in (["DT.width=16"], ["DT.budget=5"], ["evaluation.episodes=6"], ["evaluation.targets=[0.5]"])
    ]
    keys = {trial_specs(narrow(other, contenders=["DT"]))[0].key for other in changed}
    assert len(keys | {spec.key}) == 5


def test_a_working_directory_may_hold_suites_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(yaml.safe_dump(SUITE | {"name": "mine"}))
    assert "mine" in suite_names()
    assert load_suite("mine").name == "mine"
