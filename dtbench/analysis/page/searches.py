"""The section on hyperparameter searches."""

from collections.abc import Iterator, Sequence

from dtbench.analysis.figures.searches import draw_expected_best
from dtbench.analysis.page.section import Section
from dtbench.analysis.tables.searches import best_table, budget_table, expected_curves
from dtbench.tuning.search import SearchRecord

HEADING = "Hyperparameter searches"


RULE = (
    "Searches train with seeds from 1000 on and play other evaluation episodes than those that are reported on; the "
    "best setting was then run as a contender of its own, or not at all. Choosing a target return is tuning too: each "
    "pair of a setting and a target counts as a setting tried. Steps are gradient steps of all its trials."
)


EXPECTED = (
    "The score to expect of the best of n settings, were n of those tried drawn at random (Dodge et al. 2019, with "
    "replacement, exactly). A setting that was stopped early counts with its last score, one without a score as the "
    "lowest."
)


def searches_section(records: Sequence[SearchRecord]) -> Iterator[Section]:
    """Yield the section of the report; nothing where there is no search."""
    if records:
        drawings = tuple(draw_expected_best(record, tuple(expected_curves(record))) for record in records)
        tables = (budget_table(records), *(best_table(record, 5) for record in records))
        yield Section(HEADING, (RULE, EXPECTED), tables, tuple(one for one in drawings if one))
