"""What a notebook shows of datasets, episodes, tasks and policies."""

import numpy as np

from dtbench.evaluation import Episodes
from dtbench.registry import make_task


def test_a_dataset_is_shown_in_a_line_and_as_a_table() -> None:
    dataset = make_task("graph-0").load_dataset()
    assert repr(dataset).startswith("TrajectoryDataset(source generated, episodes 1000, steps ")
    assert len(repr(dataset)) < 300
    page = dataset._repr_html_()
    assert "<th>observations</th><td>Discrete(20)</td>" in page
    assert page.count("<tr>") == 7


def test_episodes_are_shown_by_target() -> None:
    numbers = np.arange(4)
    targets, returns = np.array([1.0, 1.0, np.nan, np.nan]), np.array([0.0, 1.0, 2.0, 2.0])
    episodes = Episodes(targets, numbers, numbers, returns, numbers)
    assert repr(episodes) == (
        "Episodes(target 1: 2 episodes, mean return 0.5 (0 to 1); no target: 2 episodes, mean return 2 (2 to 2))"
    )
    assert "<th>target 1</th>" in episodes._repr_html_()


def test_a_task_is_shown_in_a_line() -> None:
    assert repr(make_task("graph-0")).startswith("Task(graph-0: Walk to a goal")
