"""Inputs of tables, and suites without results, made up by hand."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dtbench.analysis.published import RunConditions
from dtbench.analysis.results import SuiteResults, joined, score_table
from dtbench.analysis.suite_analysis import CellStatus, Estimates, SuiteAnalysis, TableInputs

Counts = Mapping[tuple[str, str], int]


def inputs(
    estimates: Estimates,
    conditions: Mapping[str, RunConditions] | None = None,
    *,
    missing: Counts | None = None,
    broken: Counts | None = None,
    links: Mapping[tuple[str, str], str] | None = None,
) -> TableInputs:
    """Return inputs with counts and links of some cells."""
    missing, broken, links = missing or {}, broken or {}, links or {}
    statuses = {
        cell: CellStatus(missing.get(cell, 0), broken.get(cell, 0), link=links.get(cell, ""))
        for cell in {**missing, **broken, **links}
    }
    return TableInputs(estimates, conditions or {}, statuses)


def empty_analysis(contenders: Sequence[str]) -> SuiteAnalysis:
    """Return a suite of which nothing has run."""
    return SuiteAnalysis(SuiteResults({}, (), (), score_table(()), joined({})), contenders, [], pd.DataFrame(), {})
