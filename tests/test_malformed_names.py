"""Names from files and the command line lead nowhere but into the results and data folders, and are escaped."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dtbench.analysis.archive import write_archive
from dtbench.analysis.page.build import build_report, write_report
from dtbench.data import cache
from dtbench.data.minari import check_id, is_local
from dtbench.errors import DtbenchError, InvalidSuite, InvalidValue, UnknownName
from dtbench.ledger.store import Ledger
from dtbench.suite.package_data import find
from dtbench.suite.planning import load_suite, resolved_document, trial_specs
from tests.support.tiny_ledger import spec_of, tiny_ledger

NAMES = (
    *(
        "../x",
        "../../x",
        "/tmp/x",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "con",
        "~",
        "~root",
        "*",
        "[",
        "-x",
        " x ",
        "x\n",
        "x" * 300,
    ),
    *(
        "<script>alert(1)</script>",
        "'\"&<>",
        "{{ 7 * 7 }}",
        "${HOME}",
        "\\input{/etc/passwd}",
        "🙂",
        "x\x00y",
        "%00",
        "a.b",
    ),
)


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_suite_and_a_contender_of_any_name_write_into_the_results_alone(tmp_path: Path, name: str) -> None:
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    for field in ("name", "contender", "title"):
        document = {"tasks": ["graph-0"], "seeds": [0], "contenders": {"R": {"algorithm": "random", "train_steps": 0}}}
        if field == "contender":
            document["contenders"] = {name: {"algorithm": "random", "train_steps": 0}}
        else:
            document[field] = name
        (work / "mine.yaml").write_text(yaml.safe_dump(document))
        try:
            suite = load_suite(str(work / "mine.yaml"))
        except InvalidSuite:
            continue
        specs = trial_specs(suite)
        ledger = Ledger(work / "results" / "runs")
        ledger.save_suite(resolved_document(suite, specs))
        for spec in specs:
            ledger.create(spec)
    above = everything_below(tmp_path)
    assert all(
        path in ("a", "a/b", "a/b/mine.yaml", "a/b/results") or path.startswith("a/b/results/runs") for path in above
    )


def test_the_report_escapes_what_contenders_are_called_and_writes_below_its_folder(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "'\"&<>", "{{ 7 * 7 }}", "\\input{x}", "../x", "con", "🙂")
    found = tiny_ledger(tmp_path / "results", {("hill", name): (1.0, 2.0) for name in names})
    suite = {**found.suite, "title": names[0], "description": names[0], "remarks": names[0]}
    found = replace(found, suite=suite)
    files = build_report([found])
    assert all(not Path(place).is_absolute() and ".." not in Path(place).parts for place in files)
    page = files["index.html"].decode()
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "49" not in re.findall(r">(\d+)</t[dh]>", page)
    tex = "".join(content.decode() for place, content in files.items() if place.endswith(".tex"))
    assert "\\input{x}" not in tex
    before = everything_below(tmp_path)
    write_report([found], tmp_path / "report")
    assert all(path.startswith("report") for path in everything_below(tmp_path) - before)


@pytest.mark.parametrize(
    "name", ["../x", "..", "/etc", "a/../../b-v0", "~/x-v0", ".hidden-v0", "a//b-v0", "a b-v0", "", "x" * 300]
)
def test_an_id_of_minari_stays_below_its_folder(name: str) -> None:
    with pytest.raises(InvalidValue, match="not an id of a dataset"):
        check_id(name)
    with pytest.raises(InvalidValue):
        is_local(name)


def test_ids_of_minari_as_they_are_remain() -> None:
    for name in ("mujoco/hopper/medium-v0", "D4RL/door/human-v2", "atari/pong/expert-v0", "toy-v1", "a.b/c_d-v10"):
        assert check_id(name) == name


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "../../etc/passwd", "x\x00y"])
def test_a_published_table_is_one_of_its_folder(name: str) -> None:
    with pytest.raises(UnknownName):
        find("published", name)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "a\\b", "..", "x\x00y"])
def test_the_store_makes_one_folder_of_any_name(name: str) -> None:
    folder = cache.root() / cache._safe(f"prefix-{name}")
    assert folder.parent == cache.root()
    assert "\x00" not in str(folder)


def test_an_archive_of_a_suite_whose_name_leads_elsewhere_is_not_written(tmp_path: Path) -> None:
    found = tiny_ledger(tmp_path / "results")
    away = replace(found, suite={**found.suite, "name": "../../away"})
    before = everything_below(tmp_path)
    with pytest.raises(DtbenchError):
        write_archive(away, tmp_path / "results" / "scores")
    assert everything_below(tmp_path) - before <= {"results/scores"}


def test_a_trials_folder_stays_below_the_ledger_whatever_its_labels(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    for name in NAMES:
        for spec in (spec_of("hill", name, 0), spec_of(f"gym:{name}", "DT", 0)):
            assert ledger.folder(spec).parent.parent == ledger.root
