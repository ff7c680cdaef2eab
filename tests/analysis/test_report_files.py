"""Which files a report overwrites and removes: those that a report wrote, and no others."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dtbench.analysis.page import build, html
from dtbench.analysis.page.build import MANIFEST, write_report
from dtbench.errors import DtbenchError

FILES = {
    "index.html": b"page",
    "made-up/report.md": b"text",
    "made-up/tables/scores.csv": b"1",
    "overview/report.md": b"",
}


@pytest.fixture(autouse=True)
def small_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files in place of a report that is drawn."""
    monkeypatch.setattr(build, "build_report", lambda *found, **options: with_manifest(FILES))


def with_manifest(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {**files, MANIFEST: build._manifest_of(files)}


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_second_report_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report([], tmp_path)
    assert files_below(tmp_path) == with_manifest(FILES)
    (tmp_path / "made-up" / "tables" / "notes.txt").write_text("mine")
    others = {"index.html": b"newer", "other/figures/x.png": b"png"}
    monkeypatch.setattr(build, "build_report", lambda *found, **options: with_manifest(others))
    write_report([], tmp_path)
    assert files_below(tmp_path) == with_manifest(others) | {"made-up/tables/notes.txt": b"mine"}


def test_a_report_that_was_cut_short_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = build.write_bytes

    def dies(path: Path, content: bytes) -> None:
        if path.name == "scores.csv":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(build, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        write_report([], tmp_path)
    monkeypatch.setattr(build, "write_bytes", write)
    write_report([], tmp_path)
    assert files_below(tmp_path) == with_manifest(FILES)


@pytest.mark.parametrize("mine", ["index.html", "made-up/report.md", "overview/tables/wins.csv"])
def test_a_file_that_no_report_wrote_is_not_overwritten(mine: str, tmp_path: Path) -> None:
    path = tmp_path / mine
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    if mine.endswith("wins.csv"):  # a table of no report: left alone
        write_report([], tmp_path)
    else:
        with pytest.raises(DtbenchError, match="was not written by dtbench"):
            write_report([], tmp_path)
        assert not (tmp_path / "manifest.json").exists()
    assert path.read_text() == "mine"


def test_files_that_look_like_a_report_stay(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    names = ("report.md", "index.html", "figures/photo.png", "tables/m.csv", "tables/m.tex")
    for name in names:
        (thesis / name).parent.mkdir(parents=True, exist_ok=True)
        (thesis / name).write_text("mine")
    write_report([], tmp_path)
    write_report([], tmp_path)
    assert [(thesis / name).read_text() for name in names] == ["mine"] * len(names)


@pytest.mark.parametrize(
    "name", ["../mine.csv", "/etc/hosts", "../x/report.md", ".git/report.md", "thesis/main.tex", 3]
)
def test_a_manifest_names_nothing_but_files_of_reports(name: object, tmp_path: Path) -> None:
    report = tmp_path / "x" / "report"
    report.mkdir(parents=True)
    paths = [report / str(name), tmp_path / "mine.csv"] if not str(name).startswith("/etc") else []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (report / "manifest.json").write_text(json.dumps({"files": [name]}))
    write_report([], report)
    assert all(path.read_text() == "mine" for path in paths)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3}', "\udcff"])
def test_a_manifest_that_cannot_be_read_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DtbenchError, match=r"manifest\.json, the list of the report's files, cannot be read"):
        write_report([], tmp_path)


def test_nothing_is_written_or_removed_through_a_link(tmp_path: Path) -> None:
    away = tmp_path / "away"
    write_report([], away)
    before = files_below(away)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "made-up").symlink_to(away / "made-up")
    (tmp_path / "report" / "manifest.json").write_bytes((away / "manifest.json").read_bytes())
    with pytest.raises(DtbenchError, match="is a link"):
        write_report([], tmp_path / "report")
    assert files_below(away) == before


def test_templates_of_the_working_directory_are_not_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("report/templates", "templates", "analysis/page/templates"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "page.html.j2").write_text("{{ cycler.__init__.__globals__.os.popen('touch PWNED').read() }}")
    assert "<html" in html.render(html.Document("Made up", (), ()))
    assert not Path("PWNED").exists()


def test_a_title_is_text_and_no_template() -> None:
    page = html.render(html.Document("{{ 6 * 7 }}<script>", (), ()))
    assert "{{ 6 * 7 }}&lt;script&gt;" in page
