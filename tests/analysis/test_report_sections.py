"""Sections that domains add to a report."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dtbench import registry
from dtbench.analysis.page.section import Section
from dtbench.analysis.page.suite_page import suite_page
from dtbench.analysis.suite_analysis import SuiteAnalysis, analyze
from tests.support.tiny_ledger import tiny_ledger


def walks(analysis: SuiteAnalysis) -> Iterator[Section]:
    """The section of somebody's own domain."""
    yield Section("Walks", (f"{len(analysis.results.records)} trials walked on {', '.join(analysis.tasks)}.",))


def test_another_packages_domain_adds_its_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("made up", f"{__name__}:walks", registry.REPORT_SECTIONS)
    monkeypatch.setattr(registry, "_points", lambda group: {"made up": point})
    page = suite_page(analyze(tiny_ledger(tmp_path, {("valley", "DT"): (1.0, 2.0)})))
    (section,) = (section for section in page.sections if section.heading == "Walks")
    assert section.paragraphs == ("2 trials walked on valley.",)


@pytest.mark.parametrize("domain", ["graph", "key_to_door", "d4rl"])
def test_domains_of_dtbench_have_theirs(domain: str) -> None:
    add = registry.report_sections(domain)
    assert add is not None
    assert add.__module__ == f"dtbench.domains.{domain}.report"


@pytest.mark.parametrize("domain", ["", "atari", "nowhere", "../analysis", "graph.report", "graph/../graph"])
def test_a_name_from_an_archive_runs_nothing_else(domain: str) -> None:
    assert registry.report_sections(domain) is None
