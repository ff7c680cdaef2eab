"""Search spaces: what they may say, what is drawn from them, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from dtbench.errors import DtbenchError, InvalidValue, UnknownName
from dtbench.tuning.space import Range, check_space, draw, grid, load_space, read_space, space_names

SPACE = {
    "learning_rate": {"log": [0.0001, 0.01]},
    "dropout": {"uniform": [0.0, 0.5]},
    "num_layers": {"integers": [1, 3]},
    "hidden_size": {"choices": [32, 64]},
}


def test_every_kind_of_range_is_read() -> None:
    space = read_space(SPACE, "here")
    assert space["num_layers"] == Range("integers", (1, 3))
    assert [found.kind for found in space.values()] == ["log", "uniform", "integers", "choices"]


def test_a_draw_keeps_to_its_range_and_to_its_kind() -> None:
    for setting in draw(read_space(SPACE, "here"), 200, seed=1):
        assert 0.0001 <= setting["learning_rate"] <= 0.01
        assert 0.0 <= setting["dropout"] <= 0.5
        assert setting["num_layers"] in (1, 2, 3)
        assert setting["hidden_size"] in (32, 64)


def test_logarithms_are_drawn_evenly() -> None:
    rates = [setting["learning_rate"] for setting in draw(read_space(SPACE, "here"), 400, seed=2)]
    below = sum(rate < 0.001 for rate in rates) / len(rates)
    assert 0.4 < below < 0.6  # 0.001 is the middle of 0.0001 and 0.01 in logarithms


def test_equal_seeds_draw_equal_settings_and_more_samples_begin_with_the_same() -> None:
    space = read_space(SPACE, "here")
    assert draw(space, 20, seed=3)[:5] == draw(space, 5, seed=3)
    assert draw(space, 5, seed=4) != draw(space, 5, seed=3)


def test_the_order_of_the_file_changes_no_draw() -> None:
    turned = dict(reversed(SPACE.items()))
    assert draw(read_space(turned, "here"), 5, seed=3) == draw(read_space(SPACE, "here"), 5, seed=3)


def test_no_setting_is_drawn_twice() -> None:
    space = read_space({"hidden_size": {"choices": [1, 2]}, "num_layers": {"integers": [1, 3]}}, "here")
    settings = draw(space, 6, seed=0)
    assert len({tuple(setting.items()) for setting in settings}) == 6
    with pytest.raises(InvalidValue, match=r"7 samples of a space of 6 settings. Use --searcher grid"):
        draw(space, 7, seed=0)


def test_a_grid_has_every_combination_once_in_an_order_of_its_seed() -> None:
    space = read_space({"hidden_size": {"choices": [1, 2]}, "num_layers": {"choices": [3, 4, 5]}}, "here")
    found = grid(space, 0)
    assert {(setting["hidden_size"], setting["num_layers"]) for setting in found} == {
        (w, n) for w in (1, 2) for n in (3, 4, 5)
    }
    assert len(found) == 6
    assert found == grid(space, 0)
    assert found != grid(space, 1)


def test_a_range_has_no_grid() -> None:
    with pytest.raises(InvalidValue, match="dropout: a grid takes choices, and this is uniform"):
        grid(read_space({"dropout": {"uniform": [0, 1]}}, "here"), 0)


MALFORMED: dict[str, Any] = {
    "nothing": None,
    "a list": [1, 2],
    "an empty mapping": {},
    "a bare number": {"hidden_size": 3},
    "a bare list": {"hidden_size": [32, 64]},
    "two kinds": {"hidden_size": {"choices": [1], "integers": [1, 2]}},
    "a mistyped kind": {"hidden_size": {"choises": [1, 2]}},
    "no choices": {"hidden_size": {"choices": []}},
    "choices that are no list": {"hidden_size": {"choices": 32}},
    "choices that are text": {"hidden_size": {"choices": "32"}},
    "a choice twice": {"hidden_size": {"choices": [32, 32]}},
    "one end": {"dropout": {"uniform": [0.1]}},
    "three ends": {"dropout": {"uniform": [0.1, 0.2, 0.3]}},
    "ends that are text": {"dropout": {"uniform": ["low", "high"]}},
    "ends that are true and false": {"dropout": {"uniform": [False, True]}},
    "ends the wrong way round": {"dropout": {"uniform": [0.5, 0.1]}},
    "equal ends": {"dropout": {"uniform": [0.1, 0.1]}},
    "an infinite end": {"dropout": {"uniform": [0.0, float("inf")]}},
    "a logarithm of zero": {"learning_rate": {"log": [0, 0.1]}},
    "halves among integers": {"num_layers": {"integers": [1, 2.5]}},
    "text among numbers": {"learning_rate": {"log": ["1e-4", 0.1]}},
}


@pytest.mark.parametrize("document", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_a_space_is_an_error_that_names_the_place(document: Any) -> None:
    with pytest.raises(DtbenchError) as caught:
        read_space(document, "space.yaml")
    assert "space.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistyped_kind_and_a_mistyped_hyperparameter_hear_what_is_near() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'choices'"):
        read_space({"hidden_size": {"choises": [1, 2]}}, "here")
    with pytest.raises(UnknownName, match="Did you mean 'learning_rate'"):
        check_space(read_space({"learning_rat": {"log": [0.1, 1]}}, "here"), "dt", {})


@pytest.mark.parametrize(
    "printed",
    [
        {"hidden_size": {"choices": ["wide"]}},
        {"hidden_size": {"choices": [32, 64.5]}},
        {"hidden_size": {"uniform": [32, 64]}},
        {"balance_returns": {"integers": [3, 4]}},
        {"returns": {"choices": ["given", "taken"]}},
    ],
)
def test_values_of_the_wrong_type_are_refused_before_anything_runs(printed: Any) -> None:
    with pytest.raises(InvalidValue):
        check_space(read_space(printed, "here"), "dt", {})


def test_whole_numbers_do_for_a_hyperparameter_with_decimals() -> None:
    check_space(read_space({"weight_decay": {"integers": [0, 1]}}, "here"), "dt", {})


def test_a_space_that_reaches_beyond_a_hyperparameters_range_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"dropout = 1 must be in \[0, 1\)"):
        check_space(read_space({"dropout": {"uniform": [0.0, 1.0]}}, "here"), "dt", {})


@pytest.mark.parametrize("text", ["hidden_size: [", "hidden_size: !!python/name:os.system", "a: 1\na: 2", "\x00"])
def test_a_file_that_is_not_yaml_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(InvalidValue, match=r"cannot read space\.yaml as YAML"):
        load_space("space.yaml")


def test_a_file_or_a_name_that_is_not_there_hears_which_are() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'dt'"):
        load_space("dtt")
    with pytest.raises(UnknownName, match="search space file"):
        load_space("nowhere/dt.yaml")


def test_a_space_of_the_working_directory_comes_before_the_one_that_ships(tmp_path: Path) -> None:
    assert "dropout" in load_space("dt")
    (tmp_path / "sweeps" / "spaces").mkdir(parents=True)
    (tmp_path / "sweeps" / "spaces" / "dt.yaml").write_text("hidden_size: {choices: [8]}\n")
    assert list(load_space("dt")) == ["hidden_size"]


@pytest.mark.parametrize("name", ["dt", "cql", "iql", "td3_bc", "bc", "discrete_cql", "dt-key-to-door"])
def test_every_space_that_ships_fits_its_algorithm(name: str) -> None:
    assert name in space_names()
    check_space(load_space(name), name.partition("-")[0], {})
