import json
from pathlib import Path

import pandas as pd
import pytest

from dtbench.analysis.archive import archived, read_archive, write_archive
from dtbench.analysis.results import SuiteResults, scores_text
from dtbench.errors import LedgerError, UnknownName
from tests.support import holed_ledger

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
