"""Exact probabilities that a random walk succeeds: the predictions of a perfect critic."""

import numpy as np
from numpy.typing import NDArray

from dtbench.domains.key_to_door.data import draw_walks
from dtbench.domains.key_to_door.env import (
    HORIZON,
    KEY_CELLS,
    MOVES,
    PHASE_STEPS,
    ROOMS,
    START_CELLS,
    KeyToDoorVectorEnv,
)

Values = NDArray[np.float64]


def success_probabilities(episodes: int, *, seed: int) -> Values:
    """Return P(success | state) before every step of `random_walks(episodes, seed=seed)`, [episodes, HORIZON].

    The state is the positions of agent and key, whether the key was taken, and the time: more than a history of views
    shows while the key has not been seen. Values after an episode's end mean nothing.
    """
    actions, seeds = draw_walks(episodes, seed=seed)
    env = KeyToDoorVectorEnv(episodes)
    env.reset(seed=seeds)
    row, column = np.argwhere([[symbol == "d" for symbol in line] for line in ROOMS[2]])[0]
    door = arrivals(2, goal=(int(row), int(column)), steps=PHASE_STEPS[2])
    opens = door[PHASE_STEPS[2], START_CELLS[2][0, 0], START_CELLS[2][0, 1]]
    size = (len(ROOMS[0]), len(ROOMS[0][0]))
    takes = np.zeros((*size, PHASE_STEPS[0] + 1, *size))  # by the key's position, then as `arrivals`
    for goal in KEY_CELLS:
        takes[tuple(goal)] = arrivals(0, goal=(int(goal[0]), int(goal[1])), steps=PHASE_STEPS[0])
    probabilities = np.zeros((episodes, HORIZON))
    for step in range(HORIZON):
        position, key = tuple(env.position.T), tuple(env.key_position.T)
        if step < PHASE_STEPS[0]:
            probabilities[:, step] = opens * np.where(
                env.has_key, 1.0, takes[(*key, PHASE_STEPS[0] - step, *position)]
            )
        elif step < sum(PHASE_STEPS[:2]):
            probabilities[:, step] = opens * env.has_key
        else:
            probabilities[:, step] = env.has_key * door[(HORIZON - step, *position)]
        env.step(actions[:, step])
    return probabilities


def arrivals(room: int, *, goal: tuple[int, int], steps: int) -> Values:
    """Return P(a random walk reaches `goal` within n steps | its position), [steps + 1, rows, columns] by n."""
    free = np.array([[symbol not in "#d" for symbol in line] for line in ROOMS[room]])
    free[goal] = True
    chance = np.zeros((steps + 1, *free.shape))
    chance[0][goal] = 1.0
    for n in range(1, steps + 1):
        for row, column in np.argwhere(free):
            ahead = MOVES + np.array((row, column))
            stay = ~free[tuple(ahead.T)]
            ahead[stay] = (row, column)
            chance[n, row, column] = chance[n - 1][tuple(ahead.T)].mean()
        chance[n][goal] = 1.0
    return chance
