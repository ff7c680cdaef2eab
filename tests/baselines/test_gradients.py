"""Gradients that are written out against autograd's of the losses, and what Adam and draws ahead rest on."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.batches import Batches
from baselines.bc import BehaviorCloning, Cloned
from baselines.checkpoint import copied
from baselines.cql import CQL
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatAdam, FlatAdamW, FlatParameters
from baselines.iql import IQL
from baselines.layers import ROWS, Pass
from baselines.networks import TwinCritics, soft_update
from baselines.rebrac import ReBRAC
from baselines.sac import SAC
from baselines.td3_bc import TD3BC
from dtbench import TransitionSampler
from dtbench.data import generator
from dtbench.nn import MLP
from dtbench.testing import toy_dataset

CPU = torch.device("cpu")
WITH_LOSSES = [
    IQL(hidden_size=16),
    IQL(hidden_size=16, num_layers=1, deterministic=True, decay_steps=4, normalize_rewards=True),
    IQL(hidden_size=16, num_layers=3, minimum_log_std=1.5, expectile=0.9, temperature=9.0, maximum_weight=2.0),
    SAC(hidden_size=16, actor_hidden_size=8),
    CQL(hidden_size=16, sampled_actions=3),
    CQL(hidden_size=16, num_layers=1, sampled_actions=2, backup="soft", cloning_steps=2, initialization="rlkit"),
    CQL(hidden_size=16, sampled_actions=2, backup="mean", minimum_log_std=-1.0, initial_log_std=1.9),
]


def learner_of(algorithm: Any, *, discrete: bool = False) -> Any:
    """A learner whose weights are not near zero, and whose batch is always the same."""
    learner = algorithm.learner(toy_dataset(discrete_actions=discrete), seed=0, device=CPU)
    torch.manual_seed(0)
    for network in (learner.network, getattr(learner, "target", nn.Module())):
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    batch = learner.batches.next()
    learner.batches.next = lambda: batch
    return learner


def agree(network: nn.Module, wanted: tuple[Tensor, ...]) -> None:
    for (name, parameter), gradient in zip(network.named_parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=1e-4, atol=3e-6, msg=lambda text, n=name: f"{n} {text}"
        )


@pytest.mark.parametrize("algorithm", WITH_LOSSES, ids=repr)
def test_an_update_follows_the_gradient_of_the_losses(algorithm: Any) -> None:
    learner = learner_of(algorithm)
    batch = learner.batches.next()
    for _ in range(3):  # the second finds gradients of the first in their place
        before = learner.stream.state.clone()
        with learner.stream.active():
            losses = learner.losses(batch)
        learner.stream.state = before
        wanted = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(learner.network.parameters()))
        metrics = learner.update()
        agree(learner.network, wanted)
        assert {name: float(metrics[name]) for name in losses} == pytest.approx(
            {name: loss.item() for name, loss in losses.items()}, rel=1e-4, abs=1e-5
        )


@pytest.mark.parametrize(
    "algorithm",
    [IQL(hidden_size=16, decay_steps=None), SAC(hidden_size=16), CQL(hidden_size=16, sampled_actions=2)],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_twenty_updates_are_those_of_autograd_and_pytorchs_adam(algorithm: Any) -> None:
    learner, peer = (algorithm.learner(toy_dataset(discrete_actions=False), seed=3, device=CPU) for _ in range(2))
    parameters = list(peer.network.parameters())
    groups = [{"params": group["params"], "lr": group["lr"]} for group in peer.optimizer.param_groups]
    adam = torch.optim.Adam(groups)
    for _ in range(20):
        learner.update()
        with peer.stream.active():
            loss = torch.stack(list(peer.losses(peer.batches.next()).values())).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        adam.step()
        soft_update(peer.target, peer.network.critics, algorithm.tau)
    for module in ("network", "target"):
        ours, theirs = (getattr(one, module).parameters() for one in (learner, peer))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "algorithm",
    [
        TD3BC(hidden_size=16),
        ReBRAC(hidden_size=16, batch_size=64, num_layers=2),
        ReBRAC(hidden_size=16, batch_size=64, critic_penalty=1.0, layer_norm=False),
    ],
    ids=repr,
)
def test_critics_and_actor_follow_the_gradients_of_their_losses(algorithm: Any) -> None:
    learner = learner_of(algorithm)
    batch, actor = learner.batches.next(), learner.network.actor
    for step in range(1, 5):
        before = learner.stream.state.clone()
        with learner.stream.active():
            loss = learner.critic_loss(batch, torch.randn_like(batch.actions))
        learner.stream.state = before
        parameters = list(learner.network.critics.parameters())  # without normalisation its gains have no effect
        wanted = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        old = deepcopy(actor.state_dict())
        metrics = learner.update()
        agree(learner.network.critics, wanted)
        assert float(metrics["critic_loss"]) == pytest.approx(loss.item(), rel=1e-4)
        assert ("actor_loss" in metrics) == (step % 2 == 0)
        if step % 2 == 0:
            new = deepcopy(actor.state_dict())
            actor.load_state_dict(old)
            of_actor = learner.actor_loss(batch)  # under the critics as they are since this update
            agree(actor, torch.autograd.grad(of_actor, list(actor.parameters())))
            assert float(metrics["actor_loss"]) == pytest.approx(of_actor.item(), rel=1e-4)
            actor.load_state_dict(new)


@pytest.mark.parametrize("discrete", [True, False])
def test_cloning_follows_the_gradient_of_its_loss(discrete: bool) -> None:
    learner = learner_of(BehaviorCloning(hidden_size=16, num_layers=2, dropout=0.0), discrete=discrete)
    batch = learner.batches.next()
    loss = learner.loss(learner.network(batch.inputs), batch.labels)
    wanted = torch.autograd.grad(loss, list(learner.network.parameters()))
    metrics = learner.update()
    agree(learner.network, wanted)
    assert float(metrics["action_loss"]) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("rows", [5, ROWS, ROWS + 1, 2 * ROWS + 7])
@pytest.mark.parametrize("kind", ["one network", "two critics"])
def test_a_pass_and_its_way_back_are_those_of_autograd(kind: str, rows: int) -> None:
    torch.manual_seed(1)
    single = kind == "one network"
    network = MLP(5, 24, 16, 3) if single else TwinCritics(3, 2, hidden_size=24, num_layers=2)
    FlatParameters(network)
    inputs = torch.randn(rows, 5, requires_grad=True)
    outputs = network(inputs)[None] if single else network(inputs[:, :3], inputs[:, 3:])[..., None]
    passing, of_outputs = Pass(network), torch.randn(outputs.shape)  # type: ignore[arg-type]
    wanted = torch.autograd.grad((outputs * of_outputs).sum(), [inputs, *network.parameters()])
    with torch.no_grad():
        torch.testing.assert_close(passing.forward(inputs), outputs, rtol=1e-4, atol=1e-5)
        of_rows = passing.backward(of_outputs, rows=True)
        torch.testing.assert_close(of_rows, wanted[0], rtol=1e-4, atol=1e-4)
        for parameter, gradient in zip(network.parameters(), wanted[1:], strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3)
        passing.forward(inputs)
        passing.backward(of_outputs, add=True)
        for parameter, gradient in zip(network.parameters(), wanted[1:], strict=True):
            torch.testing.assert_close(parameter.grad, 2 * gradient, rtol=1e-3, atol=2e-3)
        kept = [parameter.grad.clone() for parameter in network.parameters()]  # type: ignore[union-attr]
        passing.forward(inputs)
        passing.backward(of_outputs, weights=False, rows=True)
        assert all(torch.equal(p.grad, grad) for p, grad in zip(network.parameters(), kept, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("rows", [5, ROWS + 1])
def test_networks_in_one_stack_are_those_alone_and_the_first_learn(rows: int, layers: int) -> None:
    torch.manual_seed(3)
    value, critics = MLP(3, *[24] * layers, 1), TwinCritics(3, 2, hidden_size=24, num_layers=layers)
    target = deepcopy(critics).requires_grad_(False)
    FlatParameters(value, critics, target)
    target.biases[0].add_(1.0)
    observations, actions, others = torch.randn(rows, 3), torch.randn(rows, 2), torch.randn(rows, 2)
    alone = [value(observations).mT, critics(observations, actions), target(observations, others)]
    of_outputs, learning = torch.randn(3, rows, 1), [*value.parameters(), *critics.parameters()]
    wanted = torch.autograd.grad((torch.cat(alone[:2])[..., None] * of_outputs).sum(), learning)
    with torch.no_grad():
        stack = Pass([value, critics, target])
        pairs = [torch.cat([observations, drawn], dim=-1) for drawn in (actions, others)]
        torch.testing.assert_close(stack.forward(observations, *pairs)[..., 0], torch.cat(alone), rtol=1e-4, atol=1e-5)
        stack.backward(of_outputs)
    for parameter, gradient in zip(learning, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("ours", "theirs"), [(FlatAdam, torch.optim.Adam), (FlatAdamW, torch.optim.AdamW)])
def test_adam_on_a_vector_is_pytorchs_and_continues_from_its_state(ours: Any, theirs: Any) -> None:
    torch.manual_seed(2)
    network = MLP(3, 8, 2)
    plain = deepcopy(network)
    flat = FlatParameters(network)

    def groups(one: MLP) -> list[dict[str, Any]]:
        return [{"params": list(one[i].parameters())[::-1], "lr": rate} for i, rate in ((0, 0.01), (2, 0.1))]

    vector, peer = ours(flat, groups(network), weight_decay=0.03), theirs(groups(plain), weight_decay=0.03)
    for step in range(4):
        for parameter, single in zip(network.parameters(), plain.parameters(), strict=True):
            assert parameter.grad is not None
            single.grad = torch.randn(single.shape)
            parameter.grad.copy_(single.grad)
        if step == 2:  # each continues from the other's state
            states = copied(vector.state_dict()), copied(peer.state_dict())
            vector.load_state_dict(states[1])
            peer.load_state_dict(states[0])
        vector.descend()
        peer.step()
        for parameter, single in zip(network.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(parameter, single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ahead", [1, 7, 100])
def test_batches_drawn_ahead_are_those_drawn_one_by_one_and_continue_anywhere(ahead: int) -> None:
    data = toy_dataset(discrete_actions=False)
    sampler = TransitionSampler(data, batch_size=3, rng=generator(0), device=CPU)
    single = TransitionSampler(data, batch_size=3, rng=generator(0), device=CPU)
    batches: Batches[Any] = Batches(sampler, lambda drawn: drawn, ahead=ahead)
    for _ in range(40):
        assert torch.equal(batches.next().observations, single.sample().observations)
    state = deepcopy(batches.state)
    wanted = [batches.next().rewards for _ in range(40)]
    other: Batches[Any] = Batches(
        TransitionSampler(data, batch_size=3, rng=generator(9), device=CPU), lambda drawn: drawn, ahead=ahead
    )
    other.state = state
    assert all(torch.equal(other.next().rewards, rewards) for rewards in wanted)
    other.state = single.rng.bit_generator.state  # as checkpoints of before have it
    assert torch.equal(other.next().rewards, single.sample().rewards)


class Operators(TorchDispatchMode):
    """Writes down what runs: every operator and the shapes of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran.append((str(func), [tuple(one.shape) for one in args if isinstance(one, Tensor)]))
        return func(*args, **(kwargs or {}))


WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")


@pytest.mark.parametrize(
    "algorithm",
    [
        *WITH_LOSSES,
        TD3BC(hidden_size=16),
        BehaviorCloning(hidden_size=16, dropout=0.0),
    ],
    ids=repr,
)
def test_updates_wait_for_nothing_and_are_alike_so_that_a_graph_could_hold_them(algorithm: Any) -> None:
    """What a CUDA graph asks for: the same operators on the same shapes each time, none of which waits for a value."""
    learner = algorithm.learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)
    for _ in range(4):
        learner.update()
    found = []
    for _ in range(2):
        with Operators() as operators:
            for _ in range(2):  # TD3+BC's actor learns in every second
                learner.update()
        found.append(operators.ran)
    assert found[0] == found[1]
    assert not [name for name, _ in found[0] if any(word in name for word in WAITING)]
    assert len(found[0]) > 20


def recorded_on_the_cpu(update: Any) -> Any:
    """What stands for a CUDA graph: it runs the update again on the same memory, without any value of Python's."""
    metrics: dict[str, Any] = {}

    def replay() -> None:
        metrics.update(update())

    return replay, metrics


@pytest.mark.parametrize(
    "algorithm",
    [
        IQL(hidden_size=16, decay_steps=9, ema_decay=0.9),
        SAC(hidden_size=16),
        CQL(hidden_size=16, sampled_actions=3, cloning_steps=6),
        TD3BC(hidden_size=16, policy_every=3, ema_decay=0.9),
        BehaviorCloning(hidden_size=16, dropout=0.0, warmup_steps=7),
    ],
    ids=repr,
)
def test_an_update_that_is_replayed_as_a_graph_takes_the_same_steps(algorithm: Any) -> None:
    plain, graphed = (algorithm.learner(toy_dataset(discrete_actions=False), seed=0, device=CPU) for _ in range(2))
    graphed.graphed = GraphedUpdate(graphed.graphed.update, CPU, recorder=recorded_on_the_cpu)
    for _ in range(16):
        wanted, found = plain.update(), graphed.update()
        assert {name: float(value) for name, value in wanted.items()} == {k: float(v) for k, v in found.items()}
    assert all(course.replay for course in graphed.graphed._courses.values())
    for one, other in zip(plain.acting.network.parameters(), graphed.acting.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_replayed_update_reads_each_batch_and_each_course_by_itself() -> None:
    seen: list[tuple[float, bool]] = []

    def update(batch: Cloned, odd: bool) -> dict[str, float]:
        seen.append((float(batch.inputs), odd))
        return {"loss": float(batch.inputs)}

    graphed: GraphedUpdate[Cloned] = GraphedUpdate(update, CPU, recorder=lambda run: (run, {}))
    for i in range(12):
        graphed(Cloned(torch.tensor(float(i)), torch.zeros(())), bool(i % 2))
    assert seen == [(float(i), bool(i % 2)) for i in range(12)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("algorithm", [*WITH_LOSSES, TD3BC(hidden_size=16, ema_decay=0.9)], ids=repr)
def test_a_cuda_graph_takes_the_steps_of_plain_updates(algorithm: Any) -> None:
    device = torch.device("cuda")
    plain, graphed = (algorithm.learner(toy_dataset(discrete_actions=False), seed=0, device=device) for _ in range(2))
    plain.graphed.recorder = None
    for _ in range(12):
        wanted, found = plain.update(), graphed.update()
        for name, value in wanted.items():
            assert float(found[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    for one, other in zip(plain.network.parameters(), graphed.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
