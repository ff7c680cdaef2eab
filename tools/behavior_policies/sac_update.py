"""The update of `baselines.sac` with its gradients written out: the same numbers in half of the time.

At batches of 128 and layers of 256 more than half of an update by autograd is the cost of its many small operators.
Here both critics are one stack, the policy's and the data's actions go through the critics together, and all
parameters lie in one flat vector, which Adam moves by one operator. `tests/domains/test_behavior_training.py` holds
this to `baselines.sac.SACLearner`: equal weights, batch and noise give equal parameters.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.sac import SAC, SoftActorCritic
from dtbench.data import TorchStream, Transitions
from dtbench.domains.d4rl.generation import LOG_STD_RANGE


class SACUpdate:
    """Networks of two hidden layers, their target critics, and one optimizer, on the processor."""

    def __init__(self, algorithm: SAC, sizes: tuple[int, int], *, seed: int) -> None:
        """Draw the initial weights as `SACLearner` does for `sizes` numbers of an observation and of an action."""
        self.algorithm, self.observations, self.actions = algorithm, *sizes
        self.stream = TorchStream(seed, torch.device("cpu"))
        with self.stream.active():
            network = SoftActorCritic(
                *sizes,
                hidden_size=algorithm.hidden_size,
                num_layers=algorithm.num_layers,
                actor_hidden_size=algorithm.actor_hidden_size,
            )
        parts = {
            "actor": [(layer.weight.T, layer.bias) for layer in network.actor if isinstance(layer, nn.Linear)],
            "critics": list(zip(network.critics.weights, network.critics.biases, strict=True)),
        }
        shapes = {name: [tensor.shape for layer in layers for tensor in layer] for name, layers in parts.items()}
        tensors = [tensor.detach() for name in ("critics", "actor") for layer in parts[name] for tensor in layer]
        self.flat = torch.cat([tensor.reshape(-1) for tensor in tensors] + [torch.zeros(1)])
        self.flat.grad = torch.zeros_like(self.flat)
        self.critic_size = sum(math.prod(shape) for shape in shapes["critics"])
        self.target = self.flat[: self.critic_size].clone()
        ordered = [*shapes["critics"], *shapes["actor"]]
        self.critics, self.actor = _layers(self.flat, ordered, len(shapes["critics"]))
        self.critic_grads, self.actor_grads = _layers(self.flat.grad, ordered, len(shapes["critics"]))
        self.target_critics, _ = _layers(self.target, shapes["critics"], len(shapes["critics"]))
        self.optimizer = torch.optim.Adam([self.flat], lr=algorithm.learning_rate, fused=True)

    @torch.no_grad()
    def update(self, batch: Transitions) -> None:
        """Take one step of policy, entropy and critics on B transitions."""
        a, rows = self.algorithm, len(batch.rewards)
        with self.stream.active():  # the order in which SACLearner draws
            noise_there, noise_here = (torch.randn(rows, 1, self.actions)[:, 0] for _ in range(2))
        weight = self.flat[-1].exp()
        states = torch.cat([batch.observations, batch.next_observations])
        hidden, squashed, log_std, noise = self.act(states, torch.cat([noise_here, noise_there]))
        density = _log_density(squashed, log_std, noise)
        chosen = squashed.tanh()

        following = self._values(self.target_critics, torch.cat([batch.next_observations, chosen[rows:]], 1))[0]
        soft = following[..., 0].amin(0) - weight * density[rows:]
        target = batch.rewards + a.discount * torch.where(batch.terminals, 0.0, soft)

        both = torch.cat([batch.actions, chosen[:rows]])
        inputs = torch.cat([batch.observations.repeat(2, 1), both], 1)
        values, layers = self._values(self.critics, inputs)
        values = values[..., 0]  # [2, 2B]: of the data's actions, then of the policy's
        error = values[:, :rows] - target
        smaller = values[:, rows:].argmin(0)
        grad = torch.zeros_like(values)
        grad[:, :rows] = error.mul(2 / rows)
        grad[:, rows:].scatter_(0, smaller[None], -1 / rows)
        of_actions = self._write_critic_grads(inputs, layers, grad[..., None], rows)

        self._write_actor_grads(batch.observations, hidden, (squashed, log_std, noise), chosen, of_actions, weight)
        entropy = density[:rows].mean()
        self.flat.grad[-1] = -(entropy - self.actions)
        self.optimizer.step()
        self.target.lerp_(self.flat[: self.critic_size], a.tau)

    def act(self, states: Tensor, noise: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Hidden layers, what tanh squashes, unclamped log standard deviations, and the noise."""
        (w1, b1), (w2, b2), (w3, b3) = self.actor
        first = torch.addmm(b1, states, w1).relu_()
        second = torch.addmm(b2, first, w2).relu_()
        mean, log_std = torch.addmm(b3, second, w3).chunk(2, dim=1)
        return [first, second], mean + log_std.clamp(*LOG_STD_RANGE).exp() * noise, log_std, noise

    @staticmethod
    def _values(critics: list[tuple[Tensor, Tensor]], inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        (w1, b1), (w2, b2), (w3, b3) = critics
        first = torch.baddbmm(b1, inputs.expand(2, -1, -1), w1).relu_()
        second = torch.baddbmm(b2, first, w2).relu_()
        return torch.baddbmm(b3, second, w3), [first, second]

    def _write_critic_grads(self, inputs: Tensor, layers: list[Tensor], grad: Tensor, rows: int) -> Tensor:
        """Write the critics' gradients, of the first `rows`; give those of the policy's actions, [B, action]."""
        first, second = layers
        (w1, _), (w2, _), (w3, _) = self.critics
        grads = self.critic_grads
        backward = torch.ops.aten.threshold_backward
        of_second = backward(grad * w3.mT, second, 0)
        of_first = backward(torch.bmm(of_second, w2.mT), first, 0)
        for (of_weight, of_bias), below, above in zip(
            grads, (inputs.expand(2, -1, -1), first, second), (of_first, of_second, grad), strict=True
        ):
            torch.bmm(below[:, :rows].mT, above[:, :rows], out=of_weight)
            torch.sum(above[:, :rows], 1, keepdim=True, out=of_bias)
        return torch.bmm(of_first[:, rows:], w1[:, self.observations :].mT).sum(0)

    def _write_actor_grads(
        self,
        states: Tensor,
        hidden: list[Tensor],
        drawn: tuple[Tensor, Tensor, Tensor],
        chosen: Tensor,
        of_actions: Tensor,
        weight: Tensor,
    ) -> None:
        """Write the actor's gradients of α log π(a | s) - Q(s, a): d log π / du is 2 tanh(u), and -1 for log σ."""
        rows = len(states)
        first, second = (layer[:rows] for layer in hidden)
        _, log_std, noise = (part[:rows] for part in drawn)
        action = chosen[:rows]
        of_mean = of_actions * (1 - action.square()) + action * (2 * weight / rows)
        bounded = log_std.clamp(*LOG_STD_RANGE)
        of_log_std = (of_mean * bounded.exp() * noise - weight / rows) * (bounded == log_std)
        above = torch.cat([of_mean, of_log_std], 1)
        (_, _), (w2, _), (w3, _) = self.actor
        backward = torch.ops.aten.threshold_backward
        of_second = backward(above @ w3.T, second, 0)
        of_first = backward(of_second @ w2.T, first, 0)
        for (of_weight, of_bias), below, grad in zip(
            self.actor_grads, (states, first, second), (of_first, of_second, above), strict=True
        ):
            torch.mm(below.T, grad, out=of_weight)
            torch.sum(grad, 0, out=of_bias)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, target critics, optimizer and random stream."""
        return {
            "flat": self.flat,
            "target": self.target,
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.flat.data.copy_(state["flat"])
        self.target.copy_(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.state = state["stream"]


def _log_density(raw: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    gaussian = -noise.square() / 2 - log_std.clamp(*LOG_STD_RANGE) - math.log(2 * math.pi) / 2
    return (gaussian - 2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(1)


def _layers(flat: Tensor, shapes: list[torch.Size], count: int) -> tuple[list[Any], list[Any]]:
    """Return views of a flat vector as (weight, bias) pairs, the first `count` shapes apart from the rest."""
    ends = torch.tensor([math.prod(shape) for shape in shapes]).cumsum(0).tolist()
    views = [flat[begin:end].view(shape) for (begin, end), shape in zip(pairwise([0, *ends]), shapes, strict=True)]
    pairs = list(zip(views[::2], views[1::2], strict=True))
    return pairs[: count // 2], pairs[count // 2 :]
