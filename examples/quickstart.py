"""Train Decision Transformer on random walks through Key-to-Door, then ask it for success and for failure.

python examples/quickstart.py [STEPS]
"""

import sys

import dtbench

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500
task = dtbench.make_task("key-to-door-1k")
dataset = task.load_dataset()
print(f"{task.name}: {dataset.num_episodes} episodes, {dataset.returns.mean():.1%} succeed")

algorithm = dtbench.DecisionTransformer(
    context=None,  # whole episodes
    hidden_size=64,
    num_layers=2,
    learning_rate=1e-3,
    warmup_steps=50,
    return_scale=1.0,
    normalize_observations=False,
)
learner = algorithm.learner(dataset, seed=0)
for step in range(1, steps + 1):
    metrics = learner.update()
    if step % 100 == 0 or step == steps:
        print(f"step {step}: " + ", ".join(f"{name} {float(value):.3f}" for name, value in metrics.items()))

episodes = dtbench.evaluate(learner, task, target_returns=[1.0, 0.0], episodes=100)
for target in (1.0, 0.0):
    print(f"target return {target:g}: mean return {episodes.returns[episodes.targets == target].mean():.2f}")
