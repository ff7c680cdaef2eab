"""A training step of Decision Transformer against published networks, at the paper's sizes.

    python -m benchmarks.training_step --out results/performance/training_step.json

A step is forward, loss, backward, clipping of gradients and AdamW on a fixed batch; ours also with the drawing of its
batch. Hopper: 64 windows of 20 steps, hidden size 128, 3 layers, 1 head, dropout 0.1. Atari: windows of 30 steps,
hidden size 128, 6 layers, 8 heads; the paper's batch is 128, the default here 16, as 128 take a CPU a quarter of a
minute. Peers: transformers' model, CORL's layout and the layout of the public Atari code (`peer_networks`). With equal
weights all must give equal outputs, which is asserted first. CORL's blocks have GELU where the paper's have ReLU, so
it is compared with ours with GELU.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer_networks import (
    CORLCalled,
    CORLLayout,
    OfficialAtariLayout,
    TransformersLayout,
    corl_weights_for_ours,
    official_weights_for_ours,
)
from benchmarks.synthetic_data import ACTION_SIZE, OBSERVATION_SIZE, PONG_ACTIONS, hopper_shaped, pong_shaped
from benchmarks.timing import Pair, Turn, alternate, calls, make_parser, milliseconds, parse, ratios, report
from dtbench import TrajectoryDataset
from dtbench.data.sampling import Windows
from dtbench.decision_transformer.huggingface import weights_for_ours
from dtbench.registry import make_algorithm

HOPPER = {"hidden_size": 128, "num_layers": 3, "num_heads": 1}  # Chen et al. (2021), Table 9; 64 windows of 20
ATARI = {"hidden_size": 128, "num_layers": 6, "num_heads": 8}  # Table 8; 128 windows of 30
TINY = {"hidden_size": 16, "num_layers": 2, "num_heads": 2}
TOLERANCE = 1e-4  # of outputs, which lie in [-1, 1] or are logits of about that size
NOISE = 0.05  # on the peers' weights: initial ones give outputs near zero, which would all agree
PAIRS = (
    Pair("Hopper, fp32", "hopper: dtbench", "hopper: transformers", 1.5),
    Pair("Hopper, fp32, GELU", "hopper: dtbench, GELU", "hopper: CORL's layout", 1.5),
    Pair("Hopper, fp32, with drawing", "hopper: dtbench, drawing too", "hopper: transformers"),
    Pair("Hopper, bf16", "hopper: dtbench, bf16", "hopper: transformers", 2.5),
    Pair("Hopper, bf16, both", "hopper: dtbench, bf16", "hopper: transformers, bf16 autocast"),
    Pair("Hopper, bf16, GELU", "hopper: dtbench, GELU, bf16", "hopper: CORL's layout", 2.5),
    Pair("Atari, fp32", "atari: dtbench", "atari: official layout", 1.5),
    Pair("Atari, fp32, with drawing", "atari: dtbench, drawing too", "atari: official layout"),
    Pair("Atari, bf16", "atari: dtbench, bf16", "atari: official layout"),
)


@dataclasses.dataclass(frozen=True)
class Batch:
    """What the peers read: normalized observations, and padding on the side that they expect."""

    returns: Tensor  # [B, T]
    observations: Tensor  # [B, T, ...]
    actions: Tensor  # [B, T, ...]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool

    def inputs(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order that all networks take."""
        return self.returns, self.observations, self.actions, self.timesteps, self.mask


def main() -> None:
    """Check outputs, measure, and print times and ratios as JSON, the ratios as a table too."""
    options = _parse()
    torch.manual_seed(0)
    differences: dict[str, float] = {}
    turns: dict[str, Turn] = {}
    for task, make in {"hopper": hopper, "atari": atari}.items():
        if task in options.tasks:
            made, apart = make(options)
            turns |= {f"{task}: {name}": turn for name, turn in made.items()}
            differences |= {f"{task}: {name}": difference for name, difference in apart.items()}
    seconds = alternate(turns, rounds=options.rounds, turn_seconds=options.turn)
    result = {
        "sizes": {"hopper": [options.batch, 20], "atari": [options.atari_batch, 30]},
        "greatest_difference_of_outputs": differences,
        "ratios": ratios(PAIRS, seconds),
        "implementations": milliseconds(seconds),
    }
    report(result, options.out)


def hopper(options: argparse.Namespace) -> tuple[dict[str, Turn], dict[str, float]]:
    """Return turns at Hopper's sizes, and how far outputs with equal weights are apart."""
    sizes = TINY if options.quick else HOPPER
    data = hopper_shaped(2000 if options.quick else 100_000)
    settings = {**sizes, "batch_size": options.batch, "dropout": 0.1}
    variants = _with_bf16({"dtbench": settings, "dtbench, GELU": {**settings, "activation": "gelu"}})
    made: dict[str, Any] = {name: _learner("dt", values, data) for name, values in variants.items()}
    ours = made["dtbench"]
    windows = ours.sampler.sample()
    batch = hopper_batch(ours, windows)
    shape = {"observed": OBSERVATION_SIZE, "acted": ACTION_SIZE, "longest": int(data.lengths.max()), **sizes}
    transformers = TransformersLayout(**shape)
    corl = CORLCalled(CORLLayout(context=ours.context, **shape))
    left, right = padded(batch, "left"), padded(batch, "right")
    differences = {
        "transformers": _difference_with_equal_weights(ours.network, batch, transformers, left),
        "CORL's layout": _difference_with_equal_weights(made["dtbench, GELU"].network, batch, corl, right),
    }
    timed = partial(calls, clock=options.clock)
    turns = {name: timed(update_on(learner, windows)) for name, learner in made.items()}
    turns["dtbench, drawing too"] = timed(_learner("dt", {**sizes, "batch_size": options.batch}, data).update)
    step = partial(step_of, loss_of=squared_error, clip=0.25, weight_decay=1e-4)
    turns["transformers"] = timed(step(transformers, left))
    turns["CORL's layout"] = timed(step(corl, right))
    turns["transformers, bf16 autocast"] = timed(step(TransformersLayout(**shape), left, bf16=True))
    return turns, differences


def atari(options: argparse.Namespace) -> tuple[dict[str, Turn], dict[str, float]]:
    """Return the same at Atari's sizes."""
    sizes = TINY if options.quick else ATARI
    data = pong_shaped(2000)
    settings = {**sizes, "batch_size": options.atari_batch}
    made = {name: _learner("dt_atari", values, data) for name, values in _with_bf16({"dtbench": settings}).items()}
    ours = made["dtbench"]
    windows = ours.sampler.sample()
    frames = windows.observations.float() / 255
    batch = Batch(windows.returns_to_go.float(), frames, windows.actions.long(), windows.timesteps, windows.mask)
    peer = OfficialAtariLayout(actions=PONG_ACTIONS, context=ours.context, longest=int(data.lengths.max()), **sizes)
    own = dataclasses.replace(batch, observations=windows.observations)
    apart = _difference_with_equal_weights(ours.network, own, peer, batch)
    timed = partial(calls, clock=options.clock)
    turns = {name: timed(update_on(learner, windows)) for name, learner in made.items()}
    turns["dtbench, drawing too"] = timed(_learner("dt_atari", settings, data).update)
    turns["official layout"] = timed(step_of(peer, batch, loss_of=cross_entropy, clip=1.0, weight_decay=0.1))
    return turns, {"official layout": apart}


def _learner(algorithm: str, settings: Mapping[str, Any], data: TrajectoryDataset) -> Any:
    return make_algorithm(algorithm, settings).learner(data, seed=0, device=torch.device("cpu"))


def _with_bf16(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {**settings, **{f"{name}, bf16": {**values, "precision": "bf16"} for name, values in settings.items()}}


def hopper_batch(learner: Any, windows: Windows) -> Batch:
    """Return the learner's windows as the peers read them."""
    return Batch(
        windows.returns_to_go.float() / learner.returns.scale,
        (windows.observations.float() - learner.mean) / learner.scale,
        windows.actions.float(),
        windows.timesteps,
        windows.mask,
    )


def padded(batch: Batch, side: str) -> Batch:
    """Return the windows with their padding on `side`, "left" or "right", wherever it is now."""
    length, device = batch.mask.shape[1], batch.mask.device
    first = batch.mask.int().argmax(dim=1, keepdim=True)
    if side == "left":
        first = first + batch.mask.sum(dim=1, keepdim=True)
    places = (torch.arange(length, device=device) + first) % length
    rows = torch.arange(len(places), device=device)[:, None]
    return Batch(*(tensor[rows, places] for tensor in batch.inputs()))


def _difference_with_equal_weights(network: Any, batch: Batch, peer: nn.Module, seen: Batch) -> float:
    """Give both networks the same noisy weights; return the greatest difference of outputs, which must be tiny."""
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(NOISE * torch.randn_like(parameter))
    load_peer_weights(network, peer)
    ours, theirs = outputs(network, batch), outputs(peer, seen)
    apart = float((ours - theirs).abs().max())
    assert apart < TOLERANCE, f"with equal weights outputs are {apart} apart"
    assert theirs.std() > 100 * TOLERANCE, "all outputs are the same: their agreement says nothing"
    return apart


def load_peer_weights(network: Any, peer: Any) -> None:
    """Load the peer's weights into our network."""
    if isinstance(peer, TransformersLayout):
        network.load_state_dict(weights_for_ours(peer.model.state_dict()))
    elif isinstance(peer, OfficialAtariLayout):
        network.load_state_dict(official_weights_for_ours(peer))
    else:
        weights = corl_weights_for_ours(peer.network)
        weights["embed_timestep.weight"] = weights["embed_timestep.weight"][: network.embed_timestep.num_embeddings]
        network.load_state_dict(weights)


@torch.no_grad()
def outputs(network: nn.Module, batch: Batch) -> Tensor:
    """Return the predictions for all steps that are no padding, in one order on whichever side the padding is."""
    training = network.training
    predicted = network.eval()(*batch.inputs())
    network.train(training)
    logits: Tensor = predicted[0] if isinstance(predicted, tuple) else predicted
    return logits[batch.mask]


def update_on(learner: Any, windows: Windows) -> Callable[[], object]:
    """Return the learner's update, which gets the same windows each time."""
    learner.sampler.sample = lambda: windows
    return learner.update  # type: ignore[no-any-return]


def step_of(
    network: nn.Module,
    batch: Batch,
    *,
    loss_of: Callable[[Tensor, Batch], Tensor],
    clip: float,
    weight_decay: float,
    bf16: bool = False,
) -> Callable[[], None]:
    """Return a training step as published, with PyTorch's default AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=weight_decay)
    network.train()

    def step() -> None:
        with torch.autocast(batch.mask.device.type, torch.bfloat16, enabled=bf16):
            predicted = network(*batch.inputs())
        loss = loss_of(predicted.float(), batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    return step


def squared_error(predicted: Tensor, batch: Batch) -> Tensor:
    """Return the mean over all steps that are no padding."""
    return F.mse_loss(predicted[batch.mask], batch.actions[batch.mask])


def cross_entropy(predicted: Tensor, batch: Batch) -> Tensor:
    """Return the mean over all steps; Atari's windows are full."""
    return F.cross_entropy(predicted.flatten(0, 1), batch.actions.flatten())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this benchmark has."""
    parser.add_argument("--tasks", nargs="+", choices=("hopper", "atari"), default=["hopper", "atari"])
    parser.add_argument("--batch", type=int, default=64, help="windows a step at Hopper's sizes")
    parser.add_argument("--atari-batch", type=int, default=16, help="windows a step at Atari's sizes; the paper: 128")


def with_sizes(options: argparse.Namespace) -> argparse.Namespace:
    """Set what follows from the options; small with `--quick`."""
    if options.quick:
        options.batch, options.atari_batch = 8, 2
    return options


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser)
    return with_sizes(parse(parser))


if __name__ == "__main__":
    main()
