import subprocess
import zipfile
from pathlib import Path
from shutil import which

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.archive import write_archive
from dtbench.analysis.results import SuiteResults
from dtbench.cli.export import FORMATS, export, npz_bytes, rliable, score_matrices
from dtbench.errors import InvalidValue, NothingToReport, UnknownName
from tests.support.tiny_ledger import SCORES, tiny_ledger


@pytest.fixture
def whole(tmp_path: Path) -> SuiteResults:
    return tiny_ledger(tmp_path / "results")


def test_csv_is_the_score_file(whole: SuiteResults, tmp_path: Path) -> None:
    path, _ = export(whole, "csv")
    assert path == Path("tiny.csv")
    write_archive(whole, tmp_path / "scores")
    assert path.read_bytes() == (tmp_path / "scores" / "tiny.csv").read_bytes()


def test_parquet_has_every_episode_under_its_labels(whole: SuiteResults) -> None:
    path, _ = export(whole, "parquet")
    rows = pd.read_parquet(path)
    names = ["suite", "task", "contender", "algorithm", "seed", "key", "dataset_source", "step", "target", "episode"]
    assert list(rows)[: len(names)] == names
    assert len(rows) == 6 * 5 * 2 + 6 * 2 * 2  # DT: two targets, then three; BC: one; two episodes each
    assert set(rows["seed"]) == {0, 1, 2}
    assert set(rows["evaluation_seed"]) == {1000, 1001}
    last = rows[(rows["step"] == 20) & (rows["contender"] == "BC") & (rows["task"] == "hill")]
    assert last.groupby("seed")["score"].mean().tolist() == [30.0, 31.0, 32.0]


def test_parquet_leaves_empty_what_only_other_tasks_have(whole: SuiteResults, tmp_path: Path) -> None:
    first, *_ = sorted((tmp_path / "results" / "runs" / "valley").glob("*/episodes.parquet"))
    pd.read_parquet(first).assign(novel=True).to_parquet(first, index=False)
    path, _ = export(tiny_again(tmp_path), "parquet")
    novel = pd.read_parquet(path)["novel"]
    assert novel.isna().any()
    assert novel.dropna().all()


def tiny_again(tmp_path: Path) -> SuiteResults:
    """What the ledger has by now."""
    from dtbench.analysis.archive import load_results

    (found,) = load_results(tmp_path / "results")
    return found


def test_latex_is_a_folder_whose_main_file_names_every_table(whole: SuiteResults) -> None:
    path, exported = export(whole, "latex")
    assert path == Path("tiny-latex")
    tables = {file.stem for file in path.glob("*.tex")} - {"main"}
    assert len(tables) > 3
    assert {*exported.files} == {"main.tex", *(f"{name}.tex" for name in tables)}
    main = (path / "main.tex").read_text()
    assert r"\usepackage{booktabs}" in main
    assert all(rf"\input{{{name}}}" in main for name in tables)


@pytest.mark.skipif(not which("pdflatex"), reason="pdflatex is not installed")
def test_the_exported_latex_compiles(whole: SuiteResults) -> None:
    path, _ = export(whole, "latex")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main"], cwd=path, timeout=400)
    assert done.returncode == 0


def test_rliable_gets_seeds_by_tasks_of_each_contender(whole: SuiteResults) -> None:
    path, exported = export(whole, "rliable")
    scores = dict(np.load(path))  # which refuses pickles
    tasks = scores.pop("tasks")
    assert tasks.tolist() == ["valley", "hill"]
    assert scores["DT"].tolist() == [[50, 70], [51, 71], [52, 72]]
    assert scores["BC"].tolist() == [[40, 30], [41, 31], [42, 32]]
    assert exported.left_out == ()


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
        rliable(tiny_ledger(tmp_path, scores))


def test_npz_has_the_final_episodes_the_curve_and_the_targets(whole: SuiteResults) -> None:
    path, _ = export(whole, "npz")
    arrays = dict(np.load(path))
    assert arrays["contenders"].tolist() == ["DT", "BC"]
    assert arrays["DT/valley/seeds"].tolist() == [0, 1, 2]
    assert arrays["DT/valley/scores"].tolist() == [[49, 51], [50, 52], [51, 53]]
    assert arrays["DT/valley/returns"].tolist() == [[490, 510], [500, 520], [510, 530]]
    assert arrays["DT/valley/lengths"].shape == (3, 2)
    assert arrays["DT/valley/steps"].tolist() == [10, 20]
    assert arrays["DT/valley/curve"].tolist() == [[25, 50], [25.5, 51], [26, 52]]
    assert arrays["DT/valley/targets"].tolist() == [60, 100, 200]
    assert arrays["DT/valley/achieved"].shape == (3, 3, 2)
    assert arrays["DT/valley/achieved"][0, 1].tolist() == [490, 510]
    assert np.isnan(arrays["BC/hill/targets"]).all()
    assert arrays["BC/hill/achieved"].shape == (3, 1, 2)


def test_equal_arrays_give_equal_bytes_whatever_their_names(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3.0), "DT/a:b/c": np.array(["ä"]), "allow_pickle": np.zeros((2, 0))}
    assert npz_bytes(arrays) == npz_bytes(arrays)
    (tmp_path / "x.npz").write_bytes(npz_bytes(arrays))
    found = dict(np.load(tmp_path / "x.npz"))
    assert found.keys() == arrays.keys()
    assert found["DT/a:b/c"].tolist() == ["ä"]
    assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is None


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_nothing_is_overwritten_unless_it_is_asked(whole: SuiteResults, kind: str) -> None:
    path, _ = export(whole, kind)
    with pytest.raises(InvalidValue, match="--force"):
        export(whole, kind)
    assert export(whole, kind, force=True)[0] == path


@pytest.mark.parametrize(
    ("kind", "out", "printed"),
    [
        ("csv", "x.txt", r"ends in \.csv"),
        ("parquet", "x.csv", r"ends in \.parquet"),
        ("rliable", "x", r"ends in \.npz"),
        ("csv", "folder.csv", "is a folder"),
        ("latex", "file", "is a file"),
        ("npz", "file/x.npz", "cannot write"),
    ],
)
def test_a_place_that_does_not_fit_is_refused(whole: SuiteResults, kind: str, out: str, printed: str) -> None:
    Path("folder.csv").mkdir()
    Path("file").write_text("mine")
    with pytest.raises(InvalidValue, match=printed):
        export(whole, kind, Path(out), force=True)
    assert Path("file").read_text() == "mine"
    assert {path.name for path in Path().iterdir()} == {"folder.csv", "file", "results"}


def test_an_unknown_format_names_the_nearest(whole: SuiteResults) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'parquet'"):
        export(whole, "parket")


def test_a_contender_that_would_hide_the_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="rename it"):
        rliable(tiny_ledger(tmp_path, {("valley", "tasks"): (1.0,)}))
