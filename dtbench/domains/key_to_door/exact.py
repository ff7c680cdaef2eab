"""How likely a random walk is to succeed, exactly, from where it stands: what the best critic would say."""

import numpy as np
from numpy.typing import NDArray

from dtbench.domains.key_to_door.data import draw_games
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
    """P(success | true state) before every step of `random_walks(episodes, seed=seed)`, [episodes, HORIZON].

    The true state is where player and key are, whether the key was taken, and the time: more than any history of
    views can tell while the key has not been seen. What stands after an episode's end means nothing.
    """
    actions, games = draw_games(episodes, seed=seed)
    env = KeyToDoorVectorEnv(episodes)
    env.reset(seed=games)
    row, column = np.argwhere([[symbol == "d" for symbol in line] for line in ROOMS[2]])[0]
    door = arrivals(2, goal=(int(row), int(column)), steps=PHASE_STEPS[2])
    opens = door[PHASE_STEPS[2], START_CELLS[2][0, 0], START_CELLS[2][0, 1]]
    size = (len(ROOMS[0]), len(ROOMS[0][0]))
    takes = np.zeros((*size, PHASE_STEPS[0] + 1, *size))  # by where the key is, then as `arrivals`
    for goal in KEY_CELLS:
        takes[tuple(goal)] = arrivals(0, goal=(int(goal[0]), int(goal[1])), steps=PHASE_STEPS[0])
    found = np.zeros((episodes, HORIZON))
    for step in range(HORIZON):
        place, key = tuple(env.position.T), tuple(env.key_position.T)
        if step < PHASE_STEPS[0]:
            found[:, step] = opens * np.where(env.has_key, 1.0, takes[(*key, PHASE_STEPS[0] - step, *place)])
        elif step < sum(PHASE_STEPS[:2]):
            found[:, step] = opens * env.has_key
        else:
            found[:, step] = env.has_key * door[(HORIZON - step, *place)]
        env.step(actions[:, step])
    return found


def arrivals(room: int, *, goal: tuple[int, int], steps: int) -> Values:
    """P(a random walk is at `goal` within n steps | it stands here), [steps + 1, rows, columns] by n."""
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
