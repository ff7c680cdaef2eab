"""The environments that gymnasium makes by id: `gym.register_envs(dtbench.envs)`, then `gym.make("dtbench/Graph-v0")`.

Importing this module registers them, which is gymnasium's convention; in one call it is
`gym.make("dtbench.envs:dtbench/Graph-v0")`.
"""

import gymnasium as gym

IDS = ("dtbench/KeyToDoor-v0", "dtbench/Graph-v0", "dtbench/Reacher2d-v0")

_DOOR, _GRAPH, _REACHER = IDS
gym.register(_DOOR, entry_point="dtbench.domains.key_to_door.env:KeyToDoorEnv")
gym.register(_GRAPH, entry_point="dtbench.domains.graph.env:GraphEnv")  # of `number` 0, 1, 2, ...
gym.register(_REACHER, entry_point="dtbench.domains.d4rl.reacher_2d:Reacher2dEnv", max_episode_steps=100)
