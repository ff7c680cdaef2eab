import zipfile
from pathlib import Path

import numpy as np
import pytest

from dtbench.analysis.results import SuiteResults
from dtbench.cli.rliable import check_path, npz_bytes, score_matrices, write_rliable
from dtbench.errors import InvalidValue, NothingToReport
from tests.support.tiny_ledger import SCORES, tiny_ledger


@pytest.fixture
def whole(tmp_path: Path) -> SuiteResults:
    return tiny_ledger(tmp_path / "results")


def test_rliable_gets_seeds_by_tasks_of_each_contender(whole: SuiteResults) -> None:
    left_out = write_rliable(whole, Path("tiny.npz"))
    scores = dict(np.load("tiny.npz"))  # which refuses pickles
    tasks = scores.pop("tasks")
    assert tasks.tolist() == ["valley", "hill"]
    assert scores["DT"].tolist() == [[50, 70], [51, 71], [52, 72]]
    assert scores["BC"].tolist() == [[40, 30], [41, 31], [42, 32]]
    assert left_out == []


def test_rliable_leaves_out_a_seed_that_lacks_a_task_and_says_so(tmp_path: Path) -> None:
    found = tiny_ledger(tmp_path, {**SCORES, ("hill", "BC"): (30.0, None, float("nan"))})
    matrices, left_out = score_matrices(found)
    assert matrices["BC"].index.tolist() == [0]
    assert left_out == ["contender BC, seed 1 (no hill)", "contender BC, seed 2 (no hill)"]


def test_rliable_leaves_out_a_contender_without_a_whole_seed(tmp_path: Path) -> None:
    matrices, left_out = score_matrices(tiny_ledger(tmp_path, {**SCORES, ("hill", "BC"): (None, None, None)}))
    assert list(matrices) == ["DT"]
    assert left_out == ["contender BC: no seed has a score on every task; seed 0 has none on hill."]


def test_rliable_leaves_out_a_task_that_nobody_ran(tmp_path: Path) -> None:
    scores = {**SCORES, ("hill", "BC"): (None,), ("hill", "DT"): (None,)}
    matrices, left_out = score_matrices(tiny_ledger(tmp_path, scores))
    assert matrices["DT"].columns.tolist() == ["valley"]
    assert left_out == ["task hill: no finished trial has a score on it."]


def test_rliable_says_where_nothing_is_left(tmp_path: Path) -> None:
    scores = {("valley", "BC"): (1.0, None), ("hill", "BC"): (None, 2.0)}
    with pytest.raises(NothingToReport, match="no contender of tiny"):
        write_rliable(tiny_ledger(tmp_path, scores), Path("x.npz"))


def test_equal_arrays_give_equal_bytes_whatever_their_names(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3.0), "DT/a:b/c": np.array(["ä"]), "allow_pickle": np.zeros((2, 0))}
    assert npz_bytes(arrays) == npz_bytes(arrays)
    (tmp_path / "x.npz").write_bytes(npz_bytes(arrays))
    found = dict(np.load(tmp_path / "x.npz"))
    assert found.keys() == arrays.keys()
    assert found["DT/a:b/c"].tolist() == ["ä"]
    assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is None


def test_nothing_is_overwritten_unless_it_is_asked() -> None:
    Path("x.npz").write_text("mine")
    with pytest.raises(InvalidValue, match="--force"):
        check_path(Path("x.npz"))
    check_path(Path("x.npz"), force=True)


def test_a_path_that_does_not_fit_is_refused(whole: SuiteResults) -> None:
    with pytest.raises(InvalidValue, match=r"ends in \.npz"):
        check_path(Path("x.txt"))
    Path("file").write_text("mine")
    with pytest.raises(InvalidValue, match="cannot write"):
        write_rliable(whole, Path("file/x.npz"))
    assert Path("file").read_text() == "mine"


def test_a_contender_that_would_hide_the_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="rename it"):
        write_rliable(tiny_ledger(tmp_path, {("valley", "tasks"): (1.0,)}), Path("x.npz"))
