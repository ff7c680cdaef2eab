"""Critics with layer normalisation, and their gradients written out."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6  # added to the variance, as in Flax, which ReBRAC's authors use
RELU_BACKWARD = torch.ops.aten.threshold_backward.default
LAYER_NORM_BACKWARD = torch.ops.aten.native_layer_norm_backward.default


class NormalizedCritics(nn.Module):
    """Two Q-functions as one stack of weights: ReLU and layer normalisation after each hidden layer."""

    def __init__(self, inputs: int, *, hidden_size: int, num_layers: int, layer_norm: bool) -> None:
        """Draw weights U(±1/sqrt(inputs)) with biases 0.1, and U(±3e-3) in the last layer, as the authors do."""
        super().__init__()
        self.layer_norm = layer_norm
        sizes = [inputs, *[hidden_size] * num_layers, 1]
        made = [torch.empty(2, size, outputs) for size, outputs in pairwise(sizes)]
        for weight in made:
            bound = 3e-3 if weight is made[-1] else 1 / math.sqrt(weight.shape[1])
            weight.uniform_(-bound, bound)
        self.weights = nn.ParameterList(made)
        last = torch.empty(2, 1, 1).uniform_(-3e-3, 3e-3)
        self.biases = nn.ParameterList([torch.full((2, 1, hidden_size), 0.1) for _ in range(num_layers)] + [last])
        self.gains = nn.ParameterList([torch.ones(2, 1, hidden_size) for _ in range(num_layers)])
        self.shifts = nn.ParameterList([torch.zeros(2, 1, hidden_size) for _ in range(num_layers)])

    def forward(self, observations: Tensor, actions: Tensor, *, frozen: bool = False) -> Tensor:
        """Return values [2, B] of observations and actions, [B, ...] each; `frozen`: no gradient for weights."""
        parts = ([*part] for part in (self.weights, self.biases, self.gains, self.shifts))
        weights, biases, gains, shifts = ([p.detach() for p in part] if frozen else part for part in parts)
        stack = torch.cat([observations, actions], dim=-1).expand(2, -1, -1)
        for weight, bias, gain, shift in zip(weights[:-1], biases[:-1], gains, shifts, strict=True):
            stack = torch.baddbmm(bias, stack, weight).relu_()
            if self.layer_norm:
                stack = torch.addcmul(shift, F.layer_norm(stack, stack.shape[-1:], eps=EPSILON), gain)
        return torch.baddbmm(biases[-1], stack, weights[-1])[..., 0]


class NormalizedPass:
    """One use of normalised critics in an update: rows [B, inputs] to values [2, B], and back.

    Autograd takes as long as the products of networks as small as these. What lies between the layers is kept until
    the way back.
    """

    def __init__(self, critics: NormalizedCritics) -> None:
        """Read the weights, which must stay where they are in memory, as must their gradients."""
        self.layer_norm = critics.layer_norm
        parts = (critics.weights, critics.biases, critics.gains, critics.shifts)
        self.weights, self.biases, self.gains, self.shifts = ([p.detach() for p in part] for part in parts)
        self.grads = [[p.grad for p in part] for part in parts]
        self.layers: list[_Layer] = []
        self.last = torch.empty(0)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the values [2, B] of rows [B, inputs]."""
        stack, self.layers = rows.expand(2, -1, -1), []
        for weight, bias, gain, shift in zip(
            self.weights[:-1], self.biases[:-1], self.gains, self.shifts, strict=True
        ):
            hidden = torch.baddbmm(bias, stack, weight).relu_()
            layer = _Layer(stack, hidden)
            if self.layer_norm:
                layer.moments = torch.native_layer_norm(hidden, hidden.shape[-1:], None, None, EPSILON)
                stack = torch.addcmul(shift, layer.moments[0], gain)
            else:
                stack = hidden
            self.layers.append(layer)
        self.last = stack
        return torch.baddbmm(self.biases[-1], stack, self.weights[-1])[..., 0]

    def backward(self, grad: Tensor, *, weights: bool = True) -> Tensor:
        """Write the gradients of the weights, given those of the values [2, B], or else return those of the rows."""
        of_weights, of_biases, of_gains, of_shifts = self.grads
        grad = grad[..., None]
        if weights:
            _write(self.last, grad, of_weights[-1], of_biases[-1])
        grad = grad * self.weights[-1].mT
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            if layer.moments is not None:
                if weights:
                    torch.sum(grad * layer.moments[0], dim=1, keepdim=True, out=of_gains[index])
                    torch.sum(grad, dim=1, keepdim=True, out=of_shifts[index])
                _, mean, deviation = layer.moments
                shape, wanted = layer.hidden.shape[-1:], [True, False, False]
                grad = LAYER_NORM_BACKWARD(
                    grad * self.gains[index], layer.hidden, shape, mean, deviation, None, None, wanted
                )[0]
            grad = RELU_BACKWARD(grad, layer.hidden, 0)
            if weights:
                _write(layer.rows, grad, of_weights[index], of_biases[index])
            if index or not weights:
                grad = torch.bmm(grad, self.weights[index].mT)
        return grad.sum(dim=0)


class _Layer:
    """What a hidden layer keeps for the way back: its inputs, its outputs, and the normalised ones with moments."""

    def __init__(self, rows: Tensor, hidden: Tensor) -> None:
        self.rows, self.hidden = rows, hidden
        self.moments: tuple[Tensor, Tensor, Tensor] | None = None


def _write(rows: Tensor, grad: Tensor, of_weight: Tensor | None, of_bias: Tensor | None) -> None:
    assert of_weight is not None
    assert of_bias is not None
    torch.bmm(rows.mT, grad, out=of_weight)
    torch.sum(grad, dim=1, keepdim=True, out=of_bias)
