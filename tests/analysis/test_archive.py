import json
from pathlib import Path

import pandas as pd
import pytest

from dtbench.analysis.archive import archived, read_archive, write_archive
from dtbench.analysis.results import SuiteResults, scores_text
from dtbench.analysis.results_directory import (
    differences,
    keep_scores,
    load_results,
    renamed,
    results_of,
    suites_by_name,
)
from dtbench.errors import LedgerError, NothingToReport, UnknownName
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from tests.support import holed_ledger
from tests.support.tiny_ledger import SCORES, tiny_ledger

SIZES = {"tasks": 2, "contenders": 6, "seeds": 3, "episodes": 4}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return holed_ledger.results_of(tmp_path_factory.mktemp("ledger"), **SIZES)


@pytest.fixture
def folder(results: SuiteResults, tmp_path: Path) -> Path:
    write_archive(results, tmp_path)
    return tmp_path


def test_an_archive_gives_back_all_that_a_report_may_know(results: SuiteResults, folder: Path) -> None:
    found = read_archive(folder, "holed")
    assert scores_text(found.scores) == scores_text(results.scores)
    assert [one.spec for one in found.records] == [one.spec for one in results.records]
    assert [one.result for one in found.records] == [one.result for one in results.records]
    assert [one.provenance for one in found.records] == [one.provenance for one in results.records]
    assert found.unfinished == results.unfinished
    for ours, theirs in zip(found.records, results.records, strict=True):
        pd.testing.assert_frame_equal(ours.episodes(), theirs.episodes())
        pd.testing.assert_frame_equal(ours.metrics(), theirs.metrics(), check_like=True)


def test_two_archives_of_one_ledger_are_equal_to_the_byte(results: SuiteResults, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_archive(results, again)
    for path in (path for path in again.rglob("*") if path.is_file()):
        assert path.read_bytes() == (folder / path.relative_to(again)).read_bytes(), path


def test_an_archive_of_an_archive_changes_nothing(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_archive(read_archive(folder, "holed"), again)
    for path in (path for path in again.rglob("*") if path.is_file()):
        assert path.read_bytes() == (folder / path.relative_to(again)).read_bytes(), path


def test_a_changed_digit_of_the_table_is_found_and_named(folder: Path) -> None:
    path = folder / "holed.csv"
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if ",DT," in line)
    fields = lines[at].split(",")
    fields[-4] = fields[-4].replace(fields[-4][0], "7" if fields[-4][0] != "7" else "8", 1)
    path.write_text("\n".join([*lines[:at], ",".join(fields), *lines[at + 1 :]]) + "\n")
    with pytest.raises(LedgerError, match=f"line {at + 1}"):
        read_archive(folder, "holed")


def test_a_line_less_of_the_table_is_found(folder: Path) -> None:
    path = folder / "holed.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(LedgerError, match="lines"):
        read_archive(folder, "holed")


def test_a_changed_episode_is_found_too(folder: Path) -> None:
    path = folder / "holed" / "episodes.parquet"
    rows = pd.read_parquet(path)
    rows.loc[0, "score"] += 0.1
    rows.to_parquet(path, index=False)
    with pytest.raises(LedgerError, match="the episodes beside it say"):
        read_archive(folder, "holed")


@pytest.mark.parametrize("name", ["suite.json", "trials.jsonl", "episodes.parquet", "metrics.parquet"])
def test_a_file_cut_short_is_named(folder: Path, name: str) -> None:
    path = folder / "holed" / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LedgerError, match="holed"):
        read_archive(folder, "holed")


def test_a_trial_without_episodes_is_named(folder: Path) -> None:
    path = folder / "holed" / "episodes.parquet"
    rows = pd.read_parquet(path)
    rows[rows["trial"] != rows["trial"].iloc[0]].to_parquet(path, index=False)
    with pytest.raises(LedgerError, match=str(rows["trial"].iloc[0])):
        read_archive(folder, "holed")


def test_a_suite_that_is_not_kept_has_near_names(folder: Path) -> None:
    assert archived(folder) == ["holed"]
    with pytest.raises(UnknownName, match="'holed'"):
        read_archive(folder, "hole")


def test_shared_provenance_is_said_once(folder: Path) -> None:
    about = json.loads((folder / "holed" / "suite.json").read_text())
    assert len(about["provenances"]) == SIZES["tasks"]  # the tasks differ in their names


def test_remarks_of_people_travel_with_the_archive(results: SuiteResults, folder: Path) -> None:
    (folder / "holed" / "remarks.md").write_text("It fails because of the budget.\n")
    assert read_archive(folder, "holed").suite["remarks"] == "It fails because of the budget.\n"
    write_archive(results, folder)
    assert "budget" in read_archive(folder, "holed").suite["remarks"]


def place_for(found: SuiteResults, ledger: Ledger, scores: Path) -> str:
    return results_of(found.suite, ledger, scores).name


def elsewhere(scores: Path, tmp_path: Path, name: str = "tiny", digest: str = "b" * 64) -> None:
    """Put results that ran on another machine into a folder of scores."""
    write_archive(renamed(tiny_ledger(tmp_path / f"other-{digest[0]}", digest=digest), name), scores)


def test_results_go_to_their_suites_name_where_nothing_is(tmp_path: Path) -> None:
    found = tiny_ledger(tmp_path)
    assert place_for(found, Ledger(tmp_path / "runs"), tmp_path / "scores") == "tiny"


def test_results_replace_what_their_own_ledger_made(tmp_path: Path) -> None:
    ledger, scores = Ledger(tmp_path / "runs"), tmp_path / "scores"
    write_archive(tiny_ledger(tmp_path, {("valley", "BC"): (1.0, 2.0)}), scores)
    assert place_for(tiny_ledger(tmp_path), ledger, scores) == "tiny"


def test_results_of_another_machine_are_never_replaced(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    elsewhere(scores, tmp_path)
    before = {path: path.read_bytes() for path in scores.rglob("*") if path.is_file()}
    found = tiny_ledger(tmp_path, preset="smoke")
    kept = keep_scores(found.suite, Ledger(tmp_path / "runs"), scores)
    assert kept.name == "tiny-smoke"
    assert archived(scores) == ["tiny", "tiny-smoke"]
    assert before == {path: path.read_bytes() for path in before}


def test_further_seeds_extend_the_archive_of_another_machine(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    write_archive(tiny_ledger(tmp_path / "other"), scores)
    before = read_archive(scores, "tiny")
    further = tiny_ledger(tmp_path, {("valley", "BC"): (None, None, None, 44.0)})
    kept = keep_scores(further.suite, Ledger(tmp_path / "runs"), scores)
    assert kept.name == "tiny"
    assert len(kept.records) == len(before.records) + 1
    after = read_archive(scores, "tiny")
    assert [(one.spec.contender, one.spec.seed) for one in after.records if one not in before.records][-1] == ("BC", 3)
    own = before.scores.set_index(["trial", "step", "target"])["score"]
    assert after.scores.set_index(["trial", "step", "target"])["score"].loc[own.index].equals(own)
    assert load_results(tmp_path, ["tiny"])[0].scores.equals(after.scores)


def test_an_archive_is_not_written_again_where_nothing_is_new(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    found = tiny_ledger(tmp_path / "other")
    write_archive(found, scores)
    before = {path: path.stat().st_mtime_ns for path in scores.rglob("*")}
    kept = keep_scores(found.suite, Ledger(tmp_path / "runs"), scores)
    assert len(kept.records) == len(found.records)
    assert not kept.unfinished
    assert before == {path: path.stat().st_mtime_ns for path in scores.rglob("*")}


def test_trials_that_a_differing_archive_has_too_are_taken_from_it(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    theirs = tiny_ledger(tmp_path / "other")
    write_archive(theirs, scores)
    changed = theirs.suite["trials"][0]
    cell = (changed["task"], changed["contender"])
    trials = [
        TrialSpec.from_json({**trial, "train_steps": trial["train_steps"] + 1}).to_json()
        if (trial["task"], trial["contender"]) == cell
        else trial
        for trial in theirs.suite["trials"]
    ]
    mine, steps = {**theirs.suite, "trials": trials}, changed["train_steps"]
    assert f"train_steps is {steps} there, {steps + 1} here" in differences(mine, scores)
    kept = keep_scores(mine, Ledger(tmp_path / "runs"), scores)
    assert kept.name == "tiny-cpu"
    assert {record.spec.key for record in kept.records} < {record.spec.key for record in theirs.records}
    assert {one.spec.train_steps for one in kept.unfinished} == {steps + 1}


def test_a_number_follows_while_the_name_belongs_to_others_too(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    for name, digit in (("tiny", "b"), ("tiny-cpu", "c"), ("tiny-cpu-2", "d")):
        elsewhere(scores, tmp_path, name, digit * 64)
    assert place_for(tiny_ledger(tmp_path), Ledger(tmp_path / "runs"), scores) == "tiny-cpu-3"


def test_the_name_of_another_suite_of_the_ledger_is_not_taken(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    elsewhere(scores, tmp_path)
    tiny_ledger(tmp_path, suite="tiny-cpu")
    assert place_for(tiny_ledger(tmp_path), Ledger(tmp_path / "runs"), scores) == "tiny-cpu-2"


def test_results_keep_the_name_that_they_once_got(tmp_path: Path) -> None:
    ledger, scores = Ledger(tmp_path / "runs"), tmp_path / "scores"
    elsewhere(scores, tmp_path)
    found = tiny_ledger(tmp_path)
    assert [keep_scores(found.suite, ledger, scores).name for _ in range(2)] == ["tiny-cpu", "tiny-cpu"]
    assert archived(scores) == ["tiny", "tiny-cpu"]


def test_a_score_file_without_an_archive_is_not_replaced_either(tmp_path: Path) -> None:
    elsewhere(tmp_path / "whole", tmp_path)
    (tmp_path / "scores").mkdir()
    (tmp_path / "whole" / "tiny.csv").rename(tmp_path / "scores" / "tiny.csv")
    assert place_for(tiny_ledger(tmp_path), Ledger(tmp_path / "runs"), tmp_path / "scores") == "tiny-cpu"


def test_a_score_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "tiny.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LedgerError, match=r"tiny\.csv"):
        place_for(tiny_ledger(tmp_path), Ledger(tmp_path / "runs"), tmp_path / "scores")


def test_renamed_results_carry_their_new_name_everywhere(tmp_path: Path) -> None:
    found = renamed(tiny_ledger(tmp_path, {**SCORES, ("hill", "BC"): (30.0, None)}), "other")
    assert {record.spec.suite for record in found.records} == {"other"}
    assert {spec.suite for spec in found.not_run} == {"other"}
    assert set(found.scores["suite"]) == {"other"}
    assert found.suite["title"] == "Tiny (other)"
    write_archive(found, tmp_path / "scores")
    assert set(read_archive(tmp_path / "scores", "other").scores["suite"]) == {"other"}


def test_nothing_is_kept_where_nothing_has_finished(tmp_path: Path) -> None:
    found = tiny_ledger(tmp_path, {("valley", "BC"): (None,)})
    keep_scores(found.suite, Ledger(tmp_path / "runs"), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_the_ledgers_results_come_first_and_archives_fill_in(tmp_path: Path) -> None:
    elsewhere(tmp_path / "scores", tmp_path)
    elsewhere(tmp_path / "scores", tmp_path, "old", "c" * 64)
    tiny_ledger(tmp_path, preset="smoke")
    assert list(suites_by_name(Ledger(tmp_path / "runs"), tmp_path / "scores")) == ["tiny-smoke"]
    found = {one.name: one for one in load_results(tmp_path)}
    assert list(found) == ["tiny-smoke", "old", "tiny"]
    assert set(found["tiny"].scores["dataset_digest"]) == {"b" * 64}
    assert set(found["tiny-smoke"].scores["dataset_digest"]) == {"a" * 64}


def test_a_suite_is_loaded_by_its_name_alone(tmp_path: Path) -> None:
    tiny_ledger(tmp_path)
    elsewhere(tmp_path / "scores", tmp_path, "old")
    assert [one.name for one in load_results(tmp_path, ["old"])] == ["old"]


def test_an_unknown_suite_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    tiny_ledger(tmp_path)
    with pytest.raises(UnknownName, match="Did you mean 'tiny'"):
        load_results(tmp_path, ["tinny"])


def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToReport, match="Run a suite first"):
        load_results(tmp_path)


def test_a_suite_of_which_nothing_has_finished_says_so(tmp_path: Path) -> None:
    tiny_ledger(tmp_path, {("valley", "BC"): (None,)})
    for suites in ([], ["tiny"]):
        with pytest.raises(NothingToReport, match="no trial of tiny has finished"):
            load_results(tmp_path, suites)
