"""What is said of a suite's numbers beside the published ones."""

from dtbench.analysis.page.paper_tables import cell_verdict
from dtbench.analysis.suite_analysis import SuiteAnalysis


def verdicts(analysis: SuiteAnalysis, table: int = 0) -> dict[tuple[str, str], str]:
    """Return the verdict on each task and contender of one of the suite's published tables."""
    reference = analysis.published[table]
    return {cell: cell_verdict(reference, *cell, analysis.inputs) for cell in reference.numbers}
