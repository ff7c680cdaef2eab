"""The record of a search, what is best in it, and how good the best of n settings is to be expected."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtbench import registry
from dtbench.analysis.tables.searches import expected_best, expected_curves
from dtbench.errors import IncompatibleTask, LedgerError
from dtbench.tuning.search import SearchRecord, read_record, read_records, record_text, write_record
from tests.support.search_records import TASK, candidate, config, record

TEXT = record_text(record())


def changed(found: SearchRecord, **changes: Any) -> SearchRecord:
    return found.model_copy(update=changes)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "one.json", record())
    assert read_record(tmp_path / "one.json") == record()
    assert [one.name for one in read_records(tmp_path)] == ["tiny-dt-grid-asha"]


def test_a_score_that_is_not_a_number_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = changed(record(), candidates=(candidate(0, "done", (40, math.nan, 30.0)),))
    write_record(tmp_path / "one.json", found)
    assert read_record(tmp_path / "one.json").candidates[0].objective(config()) == 30.0


def test_a_record_with_the_earlier_names_is_read(tmp_path: Path) -> None:
    text = record_text(record()).replace('"config"', '"question"').replace('"scores"', '"rows"')
    text = text.replace('"candidates"', '"samples"').replace('"num_samples"', '"asked"')
    text = text.replace('"hidden_size"', '"width"')
    (tmp_path / "old.json").write_text(text)
    assert read_record(tmp_path / "old.json") == record()


def test_equal_records_give_equal_text_whatever_order_candidates_came_in() -> None:
    turned = changed(record(), candidates=())
    for one in reversed(record().candidates):
        turned = turned.with_candidate(one)
    assert record_text(turned) == record_text(record())


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2}', *(TEXT[:end] for end in range(0, len(TEXT) - 2, 97))])
def test_a_damaged_record_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(LedgerError, match=r"bad\.json") as caught:
        read_record(tmp_path / "bad.json")
    assert "\n" not in str(caught.value)


def test_the_objective_is_the_score_at_the_best_target() -> None:
    first, second, third = record().candidates
    assert first.objective(config()) == 30.0
    assert second.objective(config()) == 80.0
    assert second.objective(config(), 10) == 40.0
    assert second.targets(config()) == {TASK: 60.0}
    assert third.objective(config()) is None


def test_only_what_was_trained_to_the_end_can_win_and_of_equals_the_earlier() -> None:
    stopped, twin = candidate(3, "stopped", (10, 99.0, 99.0)), candidate(5, "done", (10, 40.0, 10.0), (40, 60.0, 80.0))
    best = record().with_candidate(stopped).with_candidate(twin).best
    assert best is not None
    assert best.number == 1
    assert changed(record(), candidates=(stopped,)).best is None


def test_every_pair_of_setting_and_target_counts_as_tried() -> None:
    assert record().settings_tried == 6
    assert record().steps == 50
    assert sum(one.episodes for one in record().candidates) == 12


def test_scores_of_several_seeds_are_averaged_before_a_target_is_chosen() -> None:
    two, one = config(training_seeds=(1000, 1001)), record().candidates[1]
    other = tuple(score._replace(seed=1001, mean=100.0 - score.mean) for score in one.scores)
    both = one.model_copy(update={"scores": (*one.scores, *other)})
    assert both.by_target(two, TASK, 40) == {100.0: 50.0, 60.0: 50.0}
    assert one.objective(two) is None  # a seed is missing


def test_the_best_to_expect_is_the_mean_over_all_draws_with_replacement() -> None:
    values = [3.0, -1.0, 4.0, 1.5, 4.0]
    for n in (1, 2, 3, 4):
        every = [max(drawn) for drawn in itertools.product(values, repeat=n)]
        assert expected_best(values, n)[0] == pytest.approx(np.mean(every))


def test_the_best_of_two_of_three_by_hand() -> None:
    # of nine pairs one has the maximum 0, three have 30 and five have 60
    assert expected_best([60.0, 0.0, 30.0], [1, 2]) == pytest.approx([30.0, (0 + 3 * 30 + 5 * 60) / 9])


def test_the_best_to_expect_rises_to_the_best_there_is() -> None:
    curve = expected_best([1.0, 2.0, 5.0], np.arange(1, 200))
    assert (np.diff(curve) >= 0).all()
    assert curve[0] == pytest.approx(8 / 3)
    assert curve[-1] == pytest.approx(5.0)


def test_target_returns_count_as_settings_in_a_curve_of_their_own() -> None:
    own, pairs = expected_curves(record())
    assert own.values == (20.0, 60.0, 20.0)  # the third has no score: it counts as the lowest
    assert pairs.values == (20.0, 30.0, 60.0, 80.0, 20.0, 20.0)
    assert "target 100" in own.tried
    assert len(pairs.curve) == 6


def test_a_contender_without_targets_has_one_curve() -> None:
    one = candidate(1, "done", (40, 60.0, 80.0))
    plain = one.model_copy(update={"scores": (one.scores[-1]._replace(target=None),)})
    without = changed(record(), config=config(targets={TASK: ()}), candidates=(plain,))
    (curve,) = expected_curves(without)
    assert curve.tried == "settings"
    assert without.settings_tried == 1


@pytest.mark.parametrize("name", registry.task_names())
def test_no_episode_is_both_tuned_on_and_reported_on(name: str) -> None:
    task = registry.make_task(name)
    if task.domain == "graph":
        with pytest.raises(IncompatibleTask, match=r"graph_task.*task_options\.number=100"):
            task.tuning_seeds(50)
        return
    reported = {seed for episodes in (1, 100, 10_000) for seed in task.evaluation_seeds(episodes)}
    tuned = {seed for episodes in (1, 100, 10_000) for seed in task.tuning_seeds(episodes)}
    assert tuned
    assert not reported & tuned
    assert len(task.tuning_seeds(100)) == len(task.evaluation_seeds(100))


def test_a_graph_that_nobody_reports_on_can_be_tuned_on() -> None:
    task = registry.make_task("dtbench.domains.graph.tasks:graph_task", {"number": 100})
    assert len(task.tuning_seeds(50)) == len(task.evaluation_seeds(50))
