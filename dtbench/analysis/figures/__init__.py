"""The figures of a suite; this package and data_card.py alone import matplotlib."""

from dtbench.analysis.figures.bars import (
    SuiteAverage,
    draw_bars,
    draw_grouped_bars,
    draw_suite_bars,
    suite_average,
)
from dtbench.analysis.figures.histograms import draw_data_cards, draw_steps_to_goal
from dtbench.analysis.figures.looks import INK, colours, markers
from dtbench.analysis.figures.marks import Marks
from dtbench.analysis.figures.progress import draw_progress, draw_progress_grid
from dtbench.analysis.figures.scene import Scene
from dtbench.analysis.figures.spread import draw_improvement, draw_profiles
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.figures.targets import draw_target_grid, draw_targets

__all__ = [
    "INK",
    "Drawing",
    "Marks",
    "Scene",
    "SuiteAverage",
    "colours",
    "draw_bars",
    "draw_data_cards",
    "draw_grouped_bars",
    "draw_improvement",
    "draw_profiles",
    "draw_progress",
    "draw_progress_grid",
    "draw_steps_to_goal",
    "draw_suite_bars",
    "draw_target_grid",
    "draw_targets",
    "markers",
    "suite_average",
]
