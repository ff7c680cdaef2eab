"""Train one trial, load its policy from the results, ask it for success and for failure, and film it.

python examples/play_policy.py [RESULTS]
"""

import sys

import gymnasium as gym

import dtbench

results = sys.argv[1] if len(sys.argv) > 1 else "results-of-play"
dtbench.run_suite("key-to-door", preset="smoke", results=results, overrides=["tasks=[key-to-door-1k]"])
scores = dtbench.load_scores(results)
key = scores[scores.contender == "DT"].trial.iloc[0]

policy = dtbench.load_policy(results, key)  # without the dataset
print(policy.evaluate([1.0, 0.0], episodes=20).groupby("target")[["return", "score", "length"]].mean())
print(policy.record("key-to-door.gif", target_return=1.0))

# The same action by action, in an environment of gymnasium's own.
gym.register_envs(dtbench.envs)
env = gym.make("dtbench/KeyToDoor-v0")
observation, _ = env.reset(seed=0)
policy.reset(target_return=1.0)
ended, reward, total = False, 0.0, 0.0
while not ended:
    observation, reward, terminated, truncated, _ = env.step(policy.act(observation, reward=reward))
    total, ended = total + reward, terminated or truncated
print(f"trial {key}: return {total:g}")
