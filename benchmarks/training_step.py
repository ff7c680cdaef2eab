"""A training step of Decision Transformer against the networks that others publish, at the paper's sizes.

    python benchmarks/training_step.py --out results/performance/training_step.json [--corl PATH]

A step is forward, loss, backward, clipping of gradients and AdamW, on a batch that lies ready; ours also with the
drawing of its batch, as a trial has it. Hopper: 64 windows of 20 steps, width 128, 3 layers, 1 head, dropout 0.1.
Atari: windows of 30 steps, width 128, 6 layers, 8 heads; the paper's batch is 128, the default here 16, as 128 take
a processor a quarter of a minute. Peers: transformers' model; CORL's, from a checkout or as the layout of it
(`peer_networks`); the layout of the public Atari code. With equal weights all must give equal outputs, which is
asserted first. CORL's blocks have GELU where the paper's have ReLU, and so has what is held against them.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contest import Pair, Turn, calls, compared, in_turn, measured, options, ready, say, table
from machine import report, surroundings
from made_data import ACTED, GAME_ACTIONS, OBSERVED, hopper_shaped, pong_shaped
from peer_networks import (
    CORLCalled,
    CORLLayout,
    OfficialAtariLayout,
    TransformersLayout,
    corl_from,
    corl_weights_for_ours,
    official_weights_for_ours,
)
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench.data.sampling import Windows
from dtbench.decision_transformer import DecisionTransformer
from dtbench.decision_transformer.network import load_transformers_weights
from dtbench.registry import make_algorithm

HOPPER = {"width": 128, "layers": 3, "heads": 1}  # Chen et al. (2021), Table 9; 64 windows of 20
ATARI = {"width": 128, "layers": 6, "heads": 8}  # Table 8; 128 windows of 30
TINY = {"width": 16, "layers": 2, "heads": 2}
TOLERANCE = 1e-4  # of outputs, which lie in [-1, 1] or are logits of about that size
SHAKEN = 0.05  # noise on the peers' weights: fresh ones give outputs of about nothing, which would all agree
HAS_PRECISION = any(field.name == "precision" for field in dataclasses.fields(DecisionTransformer))
PAIRS = (
    Pair("Hopper, fp32", "hopper: dtbench", "hopper: transformers", 1.5),
    Pair("Hopper, fp32, GELU", "hopper: dtbench, GELU", "hopper: CORL", 1.5),
    Pair("Hopper, fp32, GELU", "hopper: dtbench, GELU", "hopper: CORL's layout", 1.5),
    Pair("Hopper, fp32, with drawing", "hopper: dtbench, drawing too", "hopper: transformers"),
    Pair("Hopper, bf16", "hopper: dtbench, bf16", "hopper: transformers", 2.5),
    Pair("Hopper, bf16, both", "hopper: dtbench, bf16", "hopper: transformers, bf16 autocast"),
    Pair("Hopper, bf16, GELU", "hopper: dtbench, GELU, bf16", "hopper: CORL", 2.5),
    Pair("Hopper, bf16, GELU", "hopper: dtbench, GELU, bf16", "hopper: CORL's layout", 2.5),
    Pair("Atari, fp32", "atari: dtbench", "atari: official layout", 1.5),
    Pair("Atari, fp32, with drawing", "atari: dtbench, drawing too", "atari: official layout"),
    Pair("Atari, bf16", "atari: dtbench, bf16", "atari: official layout"),
)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What the networks of others read: standardised, masked, on the side that their padding stands."""

    returns: Tensor  # [B, T]
    observations: Tensor  # [B, T, ...]
    actions: Tensor  # [B, T, ...]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool

    def given(self) -> tuple[Tensor, ...]:
        """In the order that all networks take."""
        return self.returns, self.observations, self.actions, self.timesteps, self.mask


def main() -> None:
    """Check outputs, measure, and print times and ratios as JSON, the ratios as a table too."""
    chosen = arguments()
    torch.manual_seed(0)
    differences: dict[str, float] = {}
    contestants: dict[str, Turn] = {}
    for task, made in {"hopper": hopper, "atari": atari}.items():
        if task in chosen.tasks:
            found, outputs = made(chosen)
            contestants |= {f"{task}: {name}": turn for name, turn in found.items()}
            differences |= {f"{task}: {name}": difference for name, difference in outputs.items()}
    seconds = in_turn(contestants, rounds=chosen.rounds, turn=chosen.turn)
    result = {
        "sizes": {"hopper": [chosen.batch, 20], "atari": [chosen.atari_batch, 30]},
        "greatest_difference_of_outputs": differences,
        "ratios": compared(PAIRS, seconds),
        "contestants": measured(seconds),
        **surroundings(),
    }
    say(table(result["ratios"]))
    report(result, chosen.out)


def hopper(chosen: argparse.Namespace) -> tuple[dict[str, Turn], dict[str, float]]:
    """Contestants at Hopper's sizes, and how far outputs with equal weights are apart."""
    sizes = TINY if chosen.quick else HOPPER
    data = hopper_shaped(2000 if chosen.quick else 100_000)
    longest = int(data.lengths.max())
    made: dict[str, Any] = {}
    for name, more in _variants({"": {}, ", GELU": {"activation": "gelu"}}).items():
        settings = {**sizes, "batch_size": chosen.batch, "dropout": 0.1, **more}
        made[name] = make_algorithm("dt", settings).learner(data, seed=0, device=chosen.device)
    ours = made["dtbench"]
    windows = ours.sampler.sample()
    batch = hopper_batch(ours, windows)
    shape = {"observed": OBSERVED, "acted": ACTED, "longest": longest, **sizes}
    peers: dict[str, nn.Module] = {"transformers": TransformersLayout(**shape).to(chosen.device)}
    try:
        if chosen.corl:
            peers["CORL"] = CORLCalled(corl_from(chosen.corl, context=ours.context, **shape)).to(chosen.device)
    except RuntimeError as error:
        say(f"CORL's own network is left out: {error}")
    if "CORL" not in peers:
        peers["CORL's layout"] = CORLCalled(CORLLayout(context=ours.context, **shape)).to(chosen.device)
    seen = {name: padded(batch, "left" if name == "transformers" else "right") for name in peers}
    differences = {}
    for name, peer in peers.items():
        own = ours if name == "transformers" else made["dtbench, GELU"]
        give_weights(own.network, shaken(peer))
        differences[name] = difference(outputs(own.network, batch), outputs(peer, seen[name]), chosen.tolerance)
    turns = {name: chosen.timed(update_on(learner, windows)) for name, learner in made.items()}
    drawing = make_algorithm("dt", {**sizes, "batch_size": chosen.batch})
    turns["dtbench, drawing too"] = chosen.timed(drawing.learner(data, seed=0, device=chosen.device).update)
    for name, peer in peers.items():
        turns[name] = chosen.timed(step_of(peer, seen[name], squared_error, clip=0.25, weight_decay=1e-4))
    if HAS_PRECISION:
        peer = TransformersLayout(**shape).to(chosen.device)
        half = step_of(peer, seen["transformers"], squared_error, clip=0.25, weight_decay=1e-4, half=True)
        turns["transformers, bf16 autocast"] = chosen.timed(half)
    return turns, differences


def atari(chosen: argparse.Namespace) -> tuple[dict[str, Turn], dict[str, float]]:
    """The same at Atari's sizes."""
    sizes = TINY if chosen.quick else ATARI
    data = pong_shaped(2000)
    settings = {**sizes, "batch_size": chosen.atari_batch}
    made = {
        name: make_algorithm("dt_atari", {**settings, **more}).learner(data, seed=0, device=chosen.device)
        for name, more in _variants({"": {}}).items()
    }
    ours: Any = made["dtbench"]
    windows = ours.sampler.sample()
    frames = windows.observations.float() / 255
    batch = Batch(windows.returns_to_go.float(), frames, windows.actions.long(), windows.timesteps, windows.mask)
    peer = OfficialAtariLayout(
        actions=GAME_ACTIONS, context=ours.context, longest=int(data.lengths.max()), **sizes
    ).to(chosen.device)
    shaken(peer)
    ours.network.load_state_dict(official_weights_for_ours(peer))
    own = dataclasses.replace(batch, observations=windows.observations)
    apart = difference(outputs(ours.network, own), outputs(peer, batch), chosen.tolerance)
    turns = {name: chosen.timed(update_on(learner, windows)) for name, learner in made.items()}
    drawing = make_algorithm("dt_atari", settings)
    turns["dtbench, drawing too"] = chosen.timed(drawing.learner(data, seed=0, device=chosen.device).update)
    turns["official layout"] = chosen.timed(step_of(peer, batch, cross_entropy, clip=1.0, weight_decay=0.1))
    return turns, {"official layout": apart}


def _variants(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each setting of our own, and in bf16 where there is such a thing."""
    named = {f"dtbench{name}": dict(values) for name, values in settings.items()}
    half = {f"{name}, bf16": {**values, "precision": "bf16"} for name, values in named.items()}
    return {**named, **(half if HAS_PRECISION else {})}


def hopper_batch(learner: Any, windows: Windows) -> Batch:
    """The learner's windows as others take them."""
    return Batch(
        windows.returns_to_go.float() / learner.algorithm.return_scale,
        (windows.observations.float() - learner.mean) / learner.scale,
        windows.actions.float(),
        windows.timesteps,
        windows.mask,
    )


def padded(batch: Batch, side: str) -> Batch:
    """The same windows with their padding on this side, "left" or "right", on whichever it is now."""
    length, device = batch.mask.shape[1], batch.mask.device
    first = batch.mask.int().argmax(dim=1, keepdim=True)
    if side == "left":
        first = first + batch.mask.sum(dim=1, keepdim=True)
    places = (torch.arange(length, device=device) + first) % length
    rows = torch.arange(len(places), device=device)[:, None]
    return Batch(*(tensor[rows, places] for tensor in batch.given()))


def give_weights(network: Any, peer: Any) -> None:
    """Load the peer's weights into our network."""
    if isinstance(peer, TransformersLayout):
        load_transformers_weights(network, peer.model.state_dict())
        return
    weights = corl_weights_for_ours(peer.network)
    weights["embed_timestep.weight"] = weights["embed_timestep.weight"][: network.embed_timestep.num_embeddings]
    network.load_state_dict(weights)


@torch.no_grad()
def outputs(network: nn.Module, batch: Batch) -> Tensor:
    """Predictions for all steps that are no padding, in one order whatever side the padding stands on."""
    training = network.training
    predicted = network.eval()(*batch.given())
    network.train(training)
    return (predicted[0] if isinstance(predicted, tuple) else predicted)[batch.mask]


def difference(ours: Tensor, theirs: Tensor, tolerance: float) -> float:
    """The greatest between two tensors; raise AssertionError where it is too great, or where they say nothing."""
    apart = float((ours - theirs).abs().max())
    assert apart < tolerance, f"with equal weights outputs are {apart} apart"
    assert theirs.std() > 100 * TOLERANCE, "outputs are all the same: their agreement says nothing"
    return apart


@torch.no_grad()
def shaken(network: nn.Module) -> nn.Module:
    """The network with noise on all of its weights."""
    for parameter in network.parameters():
        parameter.add_(SHAKEN * torch.randn_like(parameter))
    return network


def update_on(learner: Any, windows: Windows) -> Callable[[], object]:
    """The learner's own update, to which the same windows are handed each time."""
    learner.sampler.sample = lambda: windows
    return learner.update  # type: ignore[no-any-return]


def step_of(
    network: nn.Module,
    batch: Batch,
    loss_of: Callable[[Tensor, Batch], Tensor],
    *,
    clip: float,
    weight_decay: float,
    half: bool = False,
) -> Callable[[], None]:
    """A training step as those who publish the network write it, with PyTorch's AdamW as it comes."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=weight_decay)
    network.train()

    def step() -> None:
        with torch.autocast(batch.mask.device.type, torch.bfloat16, enabled=half):
            predicted = network(*batch.given())
        loss = loss_of(predicted.float(), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    return step


def squared_error(predicted: Tensor, batch: Batch) -> Tensor:
    """Of all steps that are no padding."""
    return F.mse_loss(predicted[batch.mask], batch.actions[batch.mask])


def cross_entropy(predicted: Tensor, batch: Batch) -> Tensor:
    """Of all steps; Atari's windows are full."""
    return F.cross_entropy(predicted.flatten(0, 1), batch.actions.flatten())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that only this script has."""
    parser.add_argument("--tasks", nargs="+", choices=("hopper", "atari"), default=["hopper", "atari"])
    parser.add_argument("--batch", type=int, default=64, help="windows a step at Hopper's sizes")
    parser.add_argument("--atari-batch", type=int, default=16, help="windows a step at Atari's sizes; the paper: 128")
    parser.add_argument("--corl", type=Path, help="a checkout of CORL; without one, its layout is timed")


def settled(chosen: argparse.Namespace) -> argparse.Namespace:
    """The options and what follows from them; small where asked to be quick."""
    chosen.device, chosen.tolerance, chosen.timed = torch.device("cpu"), TOLERANCE, partial(calls, clock=chosen.clock)
    if chosen.quick:
        chosen.batch, chosen.atari_batch = 8, 2
    return chosen


def arguments() -> argparse.Namespace:
    """As given."""
    parser = options(__doc__)
    add_options(parser)
    return settled(ready(parser))


if __name__ == "__main__":
    main()
