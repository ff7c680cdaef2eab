"""Linear maps and dropout against PyTorch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench import nn as layers
from dtbench.nn import MLP, Dropout, Linear, dropout, feed_forward, is_faster, keep_mask, linear

Map = Callable[..., Tensor]


@pytest.fixture(params=[True, False], ids=["onednn", "mkl"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With oneDNN, where this machine has it, and without."""
    layers.has_faster_products.cache_clear()
    if not request.param:
        monkeypatch.setattr(layers, "has_faster_products", lambda: False)
    elif not layers.has_faster_products():
        pytest.skip("this processor has no faster products")
    return bool(request.param)


def grads(function: Map, *inputs: Tensor) -> list[Tensor]:
    """The value and the gradients of all inputs under a loss that weighs every number differently."""
    own = [x.detach().clone().requires_grad_(True) for x in inputs]
    value = function(*own)
    weights = torch.linspace(-1, 2, value.numel()).view(value.shape)
    (value * weights.to(value.dtype)).sum().backward()
    assert all(x.grad is not None for x in own)
    return [value.detach(), *(x.grad for x in own if x.grad is not None)]


def agree(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        size = other.abs().max()
        assert one.shape == other.shape
        assert ((one.double() - other).abs().max() / size) < 2e-6


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [3, 512, 1300])
@pytest.mark.parametrize(("inputs", "outputs"), [(11, 128), (128, 512), (512, 96)])
def test_a_linear_map_and_its_gradients_are_those_of_double_precision(
    faster: bool, rows: int, inputs: int, outputs: int, relu: bool
) -> None:
    torch.manual_seed(0)
    arrays = [torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)]
    found = grads(lambda x, w, b: linear(x, w, b, relu=relu), *arrays)

    def plain(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        product = F.linear(x, w, b)
        return product.relu() if relu else product

    agree(found, grads(plain, *(array.double() for array in arrays)))


def test_rows_may_be_strided_and_of_any_shape(faster: bool) -> None:
    torch.manual_seed(1)
    tokens, weight = torch.randn(64, 20, 3, 128), torch.randn(128, 128)
    assert is_faster(tokens[:, :, 1], weight) == faster
    found = grads(lambda x, w: linear(x[:, :, 1], w), tokens, weight)
    agree(found, grads(lambda x, w: F.linear(x[:, :, 1], w), tokens.double(), weight.double()))


def test_strided_gradients_come_back_as_quickly_and_rightly(faster: bool) -> None:
    torch.manual_seed(2)
    tokens, weight = torch.randn(2000, 128), torch.randn(128, 128)

    def stacked(x: Tensor, w: Tensor) -> Tensor:
        return torch.stack([x, linear(x, w)], dim=1)

    def plain(x: Tensor, w: Tensor) -> Tensor:
        return torch.stack([x, F.linear(x, w)], dim=1)

    agree(grads(stacked, tokens, weight), grads(plain, tokens.double(), weight.double()))


@pytest.mark.parametrize("rows", [256, 1025])
def test_an_mlp_is_the_sequence_of_its_modules(faster: bool, rows: int) -> None:
    torch.manual_seed(3)
    mlp = MLP(14, 256, 256, 2)
    plain = nn.Sequential(nn.Linear(14, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)).double()
    plain.load_state_dict(mlp.state_dict())
    values = torch.randn(rows, 14)
    found = grads(mlp, values)
    agree(found, grads(plain, values.double()))
    ours = [parameter.grad for parameter in mlp.parameters()]
    theirs = [parameter.grad for parameter in plain.parameters()]
    agree([g for g in ours if g is not None], [g for g in theirs if g is not None])
    with torch.no_grad():
        agree([mlp(values)], [plain(values.double())])


def test_frozen_layers_get_no_gradient(faster: bool) -> None:
    weights = [(torch.randn(256, 14), torch.randn(256)), (torch.randn(1, 256), torch.randn(1))]
    values = torch.randn(400, 14, requires_grad=True)
    feed_forward(values, weights).sum().backward()
    plain = values.detach().double().requires_grad_(True)
    hidden = F.linear(plain, *(x.double() for x in weights[0])).relu()
    F.linear(hidden, *(x.double() for x in weights[1])).sum().backward()
    assert values.grad is not None
    assert plain.grad is not None
    agree([values.grad], [plain.grad])


def test_the_number_of_rows_changes_no_bit_of_a_row_while_acting(faster: bool) -> None:
    if not faster and layers.is_intel() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        pytest.skip("MKL's AVX-512 kernels depend on the number of rows; on such a processor oneDNN acts")
    torch.manual_seed(4)
    layer = Linear(128, 384)
    values = torch.randn(300, 128)
    with torch.no_grad():
        whole = layer(values)
        for rows in (4, 5, 17, 63, 64, 200):
            assert torch.equal(layer(values[:rows]), whole[:rows])


def test_autocast_reaches_the_faster_products(faster: bool) -> None:
    layer = Linear(128, 512)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(torch.randn(64, 20, 128))
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("shape", [(1001, 333), (7,), (50, 4, 60, 60)])
def test_dropout_drops_as_often_as_it_says_and_keeps_the_mean(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(5)
    mask = keep_mask(torch.Size(shape), p)
    assert mask.shape == shape
    values = mask.unique()
    assert len(values) <= 2
    assert ((values == 0) | ((values - 1 / (1 - p)).abs() < 1e-4)).all()
    n = mask.numel()
    assert abs((mask == 0).double().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert abs(mask.double().mean() - 1) < 5 * (p / (1 - p) / n) ** 0.5


def test_neighbours_that_share_a_draw_are_dropped_independently() -> None:
    torch.manual_seed(6)
    dropped = (keep_mask(torch.Size((200_000, 4)), 0.5) == 0).double()
    correlations = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlations.abs().max() < 0.012


def test_dropout_at_its_ends_and_its_gradient() -> None:
    values = torch.randn(10, 10, requires_grad=True)
    assert dropout(values, 0.0) is values
    assert not dropout(values, 1.0).any()
    layer = Dropout(0.4)
    torch.manual_seed(7)
    dropped = layer(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, dropped == 0)
    assert layer.eval()(values) is values


def test_a_stream_of_random_numbers_decides_what_is_dropped() -> None:
    masks = []
    for seed in (8, 8, 9):
        torch.manual_seed(seed)
        masks.append(keep_mask(torch.Size((100, 100)), 0.2))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
