"""An evaluation of Decision Transformer: many episodes in lock step, against one episode at a time.

    python -m benchmarks.rollout --out results/performance/rollout.json

Hopper with the official sizes (context 20, hidden size 128, 3 layers, 1 head), `--targets` x `--episodes` episodes in
lock step by this package's evaluator, with and without the learner's cache. The peer is the official loop: one
episode, transformers' DecisionTransformerModel with the same weights on the last 20 steps, gymnasium's environment.
The weights are random, so that the robot falls at once: its episodes go on (gymnasium's `terminate_when_unhealthy`)
to `--max-steps`, for all alike. A time is of one step of one episode and includes the simulator.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.peer_networks import TransformersLayout
from benchmarks.synthetic_data import ACTION_SIZE, OBSERVATION_SIZE, hopper_shaped
from benchmarks.timing import Pair, Turn, alternate, calls, make_parser, milliseconds, parse, ratios, report
from dtbench import Evaluator, History
from dtbench.decision_transformer import DecisionTransformer
from dtbench.decision_transformer.huggingface import weights_for_ours
from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS

HOPPER = {"hidden_size": 128, "num_layers": 3, "num_heads": 1}  # Chen et al. (2021), Table 9
TINY = {"hidden_size": 16, "num_layers": 2, "num_heads": 1}
CONTEXT, LONGEST, RETURN_SCALE = 20, 1000, 1000.0
PEER = "transformers, one episode"
PAIRS = (
    Pair("evaluation", "dtbench", PEER, 4.0),
    Pair("cache", "dtbench", "dtbench, no cache"),
    Pair("simulators", "simulators", "simulator, one episode"),
)


def main() -> None:
    """Check that both choose the same actions, measure, and print times and ratios as JSON, the ratios as a table."""
    options = _parse()
    torch.manual_seed(0)
    ours, theirs = learners_with_equal_weights(TINY if options.quick else HOPPER)
    episodes = options.targets * options.episodes
    turns = {
        "dtbench": evaluations(ours, options),
        "dtbench, no cache": evaluations(WithoutCache(ours), options),
        PEER: calls(lambda: _exhaust(play_one(theirs, ours, options.max_steps)), options.clock),
        "simulators": calls(lambda: simulate(episodes, options.max_steps), options.clock),
        "simulator, one episode": calls(lambda: simulate(1, options.max_steps), options.clock),
    }
    steps = {name: options.max_steps * (1 if "one episode" in name else episodes) for name in turns}
    seconds = alternate(turns, rounds=options.rounds, turn_seconds=options.turn)
    per_step = {name: [value / steps[name] for value in rounds] for name, rounds in seconds.items()}
    result = {
        "episodes": episodes,
        "steps_an_episode": options.max_steps,
        "greatest_difference_of_actions": difference(ours, theirs),
        "ratios": ratios(PAIRS, per_step),
        "implementations": milliseconds(per_step),
    }
    report(result, options.out)


def learners_with_equal_weights(sizes: dict[str, int]) -> tuple[Any, TransformersLayout]:
    """Return our learner and transformers' model, both with the latter's initial weights, made larger."""
    peer = TransformersLayout(observed=OBSERVATION_SIZE, acted=ACTION_SIZE, longest=LONGEST, **sizes).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    algorithm = DecisionTransformer(context=CONTEXT, return_scale=RETURN_SCALE, **sizes)  # type: ignore[arg-type]
    learner = algorithm.learner(hopper_shaped(5000), seed=0, device=torch.device("cpu"))
    learner.network.load_state_dict(weights_for_ours(peer.model.state_dict()))
    learner.average = {name: value.clone() for name, value in learner.network.state_dict().items()}
    return learner, peer


def evaluations(learner: Any, options: argparse.Namespace) -> Turn:
    """Return turns of whole evaluations by this package's evaluator."""
    evaluator = Evaluator(lambda episodes: never_falling(episodes, options.max_steps), list(range(options.episodes)))
    targets = np.linspace(0, 3600, options.targets).tolist()
    return calls(lambda: evaluator.evaluate(learner, targets), options.clock)


class WithoutCache:
    """A learner without its rollout: the evaluator passes it whole windows."""

    def __init__(self, learner: Any) -> None:
        self.context, self.return_conditioned, self.act = learner.context, learner.return_conditioned, learner.act


def never_falling(episodes: int, max_steps: int) -> LocomotionVectorEnv:
    """Return Hopper environments whose episodes go on where it falls."""
    envs = LocomotionVectorEnv(replace(LOCOMOTION_ENVS["hopper"], horizon=max_steps), episodes)
    _ignore_falls(envs._env)
    return envs


def play_one(peer: TransformersLayout, learner: Any, steps: int) -> Iterator[torch.Tensor]:
    """Play one episode as the official code does: the model reads the last 20 steps at every step."""
    env: Any = LOCOMOTION_ENVS["hopper"].make()
    _ignore_falls(env)
    observation, _ = env.reset(seed=0)
    states, actions = torch.zeros(0, OBSERVATION_SIZE), torch.zeros(0, ACTION_SIZE)
    returns, timesteps, remaining = torch.zeros(0), torch.zeros(0, dtype=torch.long), 3600.0
    for step in range(steps):
        states = torch.cat([states, torch.from_numpy(observation).float()[None]])[-CONTEXT:]
        actions = torch.cat([actions, torch.zeros(1, ACTION_SIZE)])[-CONTEXT:]
        returns = torch.cat([returns, torch.tensor([remaining / RETURN_SCALE])])[-CONTEXT:]
        timesteps = torch.cat([timesteps, torch.tensor([step])])[-CONTEXT:]
        actions[-1] = peer_action(peer, learner, states, actions, returns, timesteps)
        observation, reward, *_ = env.step(actions[-1].numpy())
        remaining -= float(reward)
        yield actions[-1]


@torch.no_grad()
def peer_action(peer: TransformersLayout, learner: Any, *window: torch.Tensor) -> torch.Tensor:
    """Return the peer's action for a window of one episode, padded on the left as in the official code."""
    missing = CONTEXT - len(window[0])
    states, actions, returns, timesteps = (
        torch.cat([part.new_zeros(missing, *part.shape[1:]), part])[None] for part in window
    )
    mask = (torch.arange(CONTEXT) >= missing)[None]
    normalized = torch.where(mask[..., None], (states - learner.mean) / learner.scale, 0.0)
    return peer(returns, normalized, actions, timesteps, mask)[0, -1]  # type: ignore[no-any-return]


def simulate(episodes: int, steps: int) -> None:
    """Step environments with random actions."""
    rng, envs = np.random.default_rng(0), never_falling(episodes, steps)
    envs.reset(seed=0)
    for _ in range(steps):
        envs.step(rng.uniform(-1, 1, (episodes, ACTION_SIZE)).astype(np.float32))


def difference(ours: Any, theirs: TransformersLayout) -> float:
    """Return the greatest difference of both actions after one full window of random numbers; it must be tiny."""
    states, actions = torch.randn(CONTEXT, OBSERVATION_SIZE), torch.rand(CONTEXT, ACTION_SIZE) * 2 - 1
    actions[-1] = 0
    returns, timesteps = torch.rand(CONTEXT), torch.arange(CONTEXT)
    history = History(
        observations=states[None],
        actions=actions[None],
        returns_to_go=returns[None] * RETURN_SCALE,
        timesteps=timesteps[None],
        mask=torch.ones(1, CONTEXT, dtype=torch.bool),
    )
    apart = float((ours.act(history)[0] - peer_action(theirs, ours, states, actions, returns, timesteps)).abs().max())
    assert apart < 1e-4, f"with equal weights actions differ by {apart}"
    return apart


def _ignore_falls(env: Any) -> None:
    env.unwrapped._terminate_when_unhealthy = False


def _exhaust(steps: Iterator[Any]) -> None:
    for _ in steps:
        pass


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=5, turn=1.0)
    parser.add_argument("--targets", type=int, default=20, help="target returns")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of each target")
    parser.add_argument("--max-steps", type=int, default=120, help="steps of an episode")
    options = parse(parser)
    if options.quick:
        options.targets, options.episodes, options.max_steps = 2, 2, CONTEXT + 4
    return options


if __name__ == "__main__":
    main()
