"""The environments that gymnasium makes by id; it finds `register` by its entry point `gymnasium.envs`."""

import gymnasium as gym

IDS = ("dtbench/KeyToDoor-v0", "dtbench/Graph-v0", "dtbench/Reacher2d-v0")


def register() -> None:
    """Register Key-to-Door, the graphs of `number` 0, 1, 2, ... and Reacher2d."""
    door, graph, reacher = IDS
    gym.register(door, entry_point="dtbench.domains.key_to_door.env:KeyToDoorEnv")
    gym.register(graph, entry_point="dtbench.domains.graph.env:GraphEnv")
    gym.register(reacher, entry_point="dtbench.domains.d4rl.reacher_2d:Reacher2dEnv", max_episode_steps=100)
