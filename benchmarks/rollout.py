"""A step of a game played by Decision Transformer: many games at once, by what is kept, against one game at a time.

    python benchmarks/rollout.py --out results/performance/rollout.json

Hopper with the official sizes (context 20, width 128, 3 layers, 1 head), `--targets` x `--episodes` games in lock step
by this package's evaluator, exact and streaming, and without what is kept from step to step (`anew`). The peer is
what the official code does: one game, transformers' DecisionTransformerModel with the same weights on the last 20
steps, gymnasium's environment. Weights are fresh, so that the robot falls at once: its games are told to go on
(gymnasium's `terminate_when_unhealthy`), for all alike. Only steps on which the window is full are timed, as in long
episodes most are; they include the simulator, which is timed alone too. A time is of one step of one game.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from contest import CLOCKS, Pair, Turn, compared, in_turn, measured, options, ready, say, table
from machine import report, surroundings
from made_data import ACTED, OBSERVED, hopper_shaped
from peer_networks import TransformersLayout

from dtbench import Evaluator
from dtbench.decision_transformer import DecisionTransformer
from dtbench.decision_transformer.network import load_transformers_weights
from dtbench.domains.d4rl.env import RobotGames
from dtbench.domains.d4rl.env_specs import ROBOTS

HOPPER = {"width": 128, "layers": 3, "heads": 1}  # Chen et al. (2021), Table 9
TINY = {"width": 16, "layers": 2, "heads": 1}
CONTEXT, LONGEST, RETURN_SCALE = 20, 1000, 1000.0
PEER = "transformers, one game"
PAIRS = (
    Pair("exact", "exact", PEER, 4.0),
    Pair("streaming", "streaming", PEER, 15.0),
    Pair("streaming", "streaming", "exact"),
    Pair("exact", "exact", "anew"),
    Pair("simulators", "simulators alone", "simulator alone, one game"),
)


def main() -> None:
    """Check that all choose the same actions, measure, and print times and ratios as JSON, the ratios as a table."""
    chosen = _arguments()
    torch.manual_seed(0)
    ours, theirs = contestants_with_equal_weights(TINY if chosen.quick else HOPPER)
    games = chosen.targets * chosen.episodes
    turns = {
        "exact": stepping(lambda: played(ours, chosen), chosen),
        "streaming": stepping(lambda: played(ours, chosen, streaming=True), chosen),
        "anew": stepping(lambda: played(Anew(ours), chosen), chosen),
        PEER: stepping(lambda: played_alone(theirs, ours), chosen),
        "simulators alone": stepping(lambda: simulated(games), chosen),
        "simulator alone, one game": stepping(lambda: simulated(1), chosen),
    }
    at_once = {name: 1 if "one game" in name else games for name in turns}
    seconds = in_turn(turns, rounds=chosen.rounds, turn=chosen.turn)
    of_a_game = {name: [value / at_once[name] for value in rounds] for name, rounds in seconds.items()}
    result = {
        "games_at_once": games,
        "greatest_difference_of_actions": difference(ours, theirs),
        "ratios": compared(PAIRS, of_a_game),
        "contestants": measured(of_a_game),
        **surroundings(),
    }
    say(table(result["ratios"]))
    report(result, chosen.out)


def contestants_with_equal_weights(sizes: dict[str, int]) -> tuple[Any, TransformersLayout]:
    """Our learner and transformers' model, both with the latter's first weights, made larger."""
    peer = TransformersLayout(observed=OBSERVED, acted=ACTED, longest=LONGEST, **sizes).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    algorithm = DecisionTransformer(context=CONTEXT, return_scale=RETURN_SCALE, **sizes)  # type: ignore[arg-type]
    learner = algorithm.learner(hopper_shaped(5000), seed=0, device=torch.device("cpu"))
    load_transformers_weights(learner.network, peer.model.state_dict())
    learner.average = {name: value.clone() for name, value in learner.network.state_dict().items()}
    return learner, peer


def stepping(begin: Callable[[], Iterator[Any]], chosen: argparse.Namespace) -> Turn:
    """Turns of so many steps of games that go on from turn to turn and begin anew after `--max-steps`.

    Steps until the window is full are not timed.
    """
    state: dict[str, Any] = {"left": 0}
    now = CLOCKS[chosen.clock]

    def turn(count: int) -> float:
        spent = 0.0
        for _ in range(count):
            if not state["left"]:
                state.update(playing=begin(), left=chosen.max_steps - CONTEXT)
                for _ in range(CONTEXT):
                    next(state["playing"])
            began = now()
            next(state["playing"])
            spent += now() - began
            state["left"] -= 1
        return spent

    return turn


class Anew:
    """A learner without its rollout: the evaluator asks it with whole windows."""

    def __init__(self, learner: Any) -> None:
        self.context, self.return_conditioned, self.act = learner.context, learner.return_conditioned, learner.act


def played(learner: Any, chosen: argparse.Namespace, *, streaming: bool = False) -> Iterator[int]:
    """Steps of all games in lock step."""
    evaluator = Evaluator(standing, list(range(chosen.episodes)), streaming=streaming)
    table = evaluator._table(learner, np.linspace(0, 3600, chosen.targets).tolist())
    return evaluator._play(learner, table, np.arange(len(table.episodes)))


def standing(games: int) -> RobotGames:
    """Hopper's games that go on where it falls."""
    made = RobotGames(ROBOTS["hopper"], games)
    go_on(made._env)
    return made


def go_on(env: Any) -> None:
    """Let a game of Hopper go on where the robot falls."""
    env.unwrapped._terminate_when_unhealthy = False


def played_alone(peer: TransformersLayout, learner: Any) -> Iterator[None]:
    """Steps of one game as the official code plays it: the model reads the last 20 steps each time."""
    env: Any = ROBOTS["hopper"].make()
    go_on(env)
    observation, _ = env.reset(seed=0)
    states, actions = torch.zeros(0, OBSERVED), torch.zeros(0, ACTED)
    returns, timesteps, remaining = torch.zeros(0), torch.zeros(0, dtype=torch.long), 3600.0
    for step in range(LONGEST):
        states = torch.cat([states, torch.from_numpy(observation).float()[None]])[-CONTEXT:]
        actions = torch.cat([actions, torch.zeros(1, ACTED)])[-CONTEXT:]
        returns = torch.cat([returns, torch.tensor([remaining / RETURN_SCALE])])[-CONTEXT:]
        timesteps = torch.cat([timesteps, torch.tensor([step])])[-CONTEXT:]
        actions[-1] = asked(peer, learner, states, actions, returns, timesteps)
        observation, reward, *_ = env.step(actions[-1].numpy())
        remaining -= float(reward)
        yield


@torch.no_grad()
def asked(peer: TransformersLayout, learner: Any, *window: torch.Tensor) -> torch.Tensor:
    """The action after a window of one game, padded on the left as in the official code."""
    states, actions, returns, timesteps = window
    missing = CONTEXT - len(states)
    padded = [torch.cat([part.new_zeros(missing, *part.shape[1:]), part])[None] for part in window]
    mask = (torch.arange(CONTEXT) >= missing)[None]
    states, actions, returns, timesteps = padded
    standardised = torch.where(mask[..., None], (states - learner.mean) / learner.scale, 0.0)
    return peer(returns, standardised, actions, timesteps, mask)[0, -1]  # type: ignore[no-any-return]


def simulated(games: int) -> Iterator[None]:
    """Steps of games with random actions."""
    rng, env = np.random.default_rng(0), standing(games)
    env.reset(seed=0)
    for _ in range(LONGEST):
        env.step(rng.uniform(-1, 1, (games, ACTED)).astype(np.float32))
        yield


def difference(ours: Any, theirs: TransformersLayout) -> float:
    """By how much actions of both differ at most after one full window of random numbers."""
    from dtbench import History

    states, actions = torch.randn(CONTEXT, OBSERVED), torch.rand(CONTEXT, ACTED) * 2 - 1
    actions[-1] = 0
    returns, timesteps = torch.rand(CONTEXT), torch.arange(CONTEXT)
    history = History(
        observations=states[None],
        actions=actions[None],
        returns_to_go=returns[None] * RETURN_SCALE,
        timesteps=timesteps[None],
        mask=torch.ones(1, CONTEXT, dtype=torch.bool),
    )
    found = float((ours.act(history)[0] - asked(theirs, ours, states, actions, returns, timesteps)).abs().max())
    assert found < 1e-4, f"with equal weights actions differ by {found}"
    return found


def _arguments() -> argparse.Namespace:
    parser = options(__doc__, rounds=7, turn=1.0)
    parser.add_argument("--targets", type=int, default=20, help="target returns")
    parser.add_argument("--episodes", type=int, default=10, help="of each target")
    parser.add_argument("--max-steps", type=int, default=120, help="of a game, after which another begins")
    chosen = ready(parser)
    if chosen.quick:
        chosen.targets, chosen.episodes, chosen.max_steps = 2, 2, CONTEXT + 4
    return chosen


if __name__ == "__main__":
    main()
