"""The figures of a suite; this package and data_card.py alone import matplotlib."""

from dtbench.analysis.figures.bars import SuiteAverage, draw_bars, draw_grouped_bars, draw_suite_bars, suite_average
from dtbench.analysis.figures.curves import draw_progress, draw_progress_grid
from dtbench.analysis.figures.data_card import draw_data_cards
from dtbench.analysis.figures.profiles import draw_improvement, draw_profiles
from dtbench.analysis.figures.style import INK, Drawing, colours, markers
from dtbench.analysis.figures.targets import draw_target_grid, draw_targets
from dtbench.analysis.figures.tooltips import Marks

__all__ = [
    "INK",
    "Drawing",
    "Marks",
    "SuiteAverage",
    "colours",
    "draw_bars",
    "draw_data_cards",
    "draw_grouped_bars",
    "draw_improvement",
    "draw_profiles",
    "draw_progress",
    "draw_progress_grid",
    "draw_suite_bars",
    "draw_target_grid",
    "draw_targets",
    "markers",
    "suite_average",
]
