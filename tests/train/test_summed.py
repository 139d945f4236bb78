"""A frozen Linear and its LoHa as one product with W + ΔW: what the two give beside each other, in fewer products."""

import dataclasses
from collections.abc import Sequence
from contextlib import contextmanager

import pytest
import torch
from lyco_testing.toy import WIDTH, described, model_of, z_image
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lyco_core.train.frozen import Frozen, frozen_linears
from lyco_core.train.network import Network
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.targets import choose_targets
from lyco_core.train.trainable import TrainableLoHa, hadamard, loha
from lyco_core.train.trainable.summed import Way, cheapest
from lyco_core.train.trainable.sums import Base

OPTIONS = NetworkOptions("loha", 6, 3.0)
OUT, INTO = 40, 36


def made(options: NetworkOptions = OPTIONS) -> TrainableLoHa:
    trainable = TrainableLoHa.initial((OUT, INTO), options, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    for parameter in trainable.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return trainable


def module(*, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(INTO, OUT, bias=bias).requires_grad_(False).to(dtype)


def inputs(*leading: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(*leading or (2, 5), INTO, generator=torch.Generator().manual_seed(1))
    return x.to(dtype).requires_grad_()


def gradients(trainable: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y.dtype)
    return list(torch.autograd.grad(y, [x, *trainable.parameters()], weights))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return float((one.float() - other.float()).detach().norm()) <= tolerance * float(other.detach().float().norm())


def taking(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loha, "cheapest", lambda *_: way)


every_way = pytest.mark.parametrize("by_ranks", [False, True], ids=["by bands", "by ranks"])


@every_way
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "with bias"])
@pytest.mark.parametrize("elements", [1, 700, 2**22], ids="limit {}".format)
def test_it_is_the_module_and_the_change(by_ranks: bool, bias: bool, elements: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hadamard, "_ELEMENTS", elements)
    taking(Way(True, by_ranks), monkeypatch)
    net, trainable, x = module(bias=bias), made(), inputs()
    expected = linear(x, net.weight + trainable.adapter().delta_weight(), net.bias)
    w1_a, w1_b, w2_a, w2_b = trainable.parameters()
    expected = linear(x, net.weight + (w1_a @ w1_b) * (w2_a @ w2_b) * trainable.scale, net.bias)
    with frozen_linears([net]):
        found = trainable.summed(x, net.forward)
        assert found is not None
        pairs = zip(gradients(trainable, x, found), gradients(trainable, x, expected), strict=True)
        assert close(found, expected)
        assert all(close(*pair) for pair in pairs)


@every_way
def test_rows_that_are_dropped_and_an_input_without_a_gradient(by_ranks: bool, monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, by_ranks), monkeypatch)
    net, trainable = module(), made(dataclasses.replace(OPTIONS, rank_dropout=0.3))
    x = inputs().detach()
    torch.manual_seed(7)
    expected = linear(x, net.weight, net.bias) + trainable.contribution(x)
    torch.manual_seed(7)
    with frozen_linears([net]):
        found = trainable.summed(x, net.forward)
        assert found is not None
        assert close(found, expected)
        for pair in zip(
            torch.autograd.grad(found.sum(), list(trainable.parameters())),
            torch.autograd.grad(expected.sum(), list(trainable.parameters())),
            strict=True,
        ):
            assert close(*pair)


def test_where_it_is_not_taken(monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, False), monkeypatch)
    net, x = module(), inputs()
    with frozen_linears([net]):
        frozen: Frozen = net.forward
        assert made().summed(x, frozen) is not None
        assert made(dataclasses.replace(OPTIONS, bypass_mode=True)).summed(x, frozen) is None
        assert made().eval().summed(x, frozen) is None
        with torch.no_grad():
            assert made().summed(x, frozen) is None


def rounds_its_input(net: nn.Linear):
    """As a quantized product does."""
    return lambda x: linear((x * 20).round() / 20, net.weight, net.bias)


def test_a_module_that_rounds_its_inputs_keeps_its_own_product(monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, False), monkeypatch)
    net = module()
    net.forward = rounds_its_input(net)
    with frozen_linears([net]):
        assert made().summed(inputs(), net.forward) is None


@contextmanager
def dequantized(net: nn.Module, dtype: torch.dtype):
    yield net.stored.to(dtype) * net.step


def test_a_weight_that_is_dequantized_anyway_is_summed(monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, False), monkeypatch)
    net, trainable, x = module(), made(), inputs()
    net.step = 1 / 64
    net.stored = (net.weight * 64).round().to(torch.int8)
    net.forward = lambda x: linear(x, net.stored.to(x.dtype) * net.step, net.bias)
    expected = net.forward(x) + trainable.contribution(x)
    with frozen_linears([net], dequantized):
        found = trainable.summed(x, net.forward)
        assert found is not None
        assert close(found, expected)


# In half precision the sum is rounded once more.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_the_rounded_sums_is_the_sum(dtype: torch.dtype):
    """A fiftieth of what the dtype can tell, of weights of every size and both signs."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(16, 24, generator=generator) * torch.logspace(-1, 1, 24)).to(dtype)
    delta = (weight.float().abs().clamp_(min=0.01) * torch.finfo(dtype).eps / 50).to(dtype)
    drawn, ones = 4_000, torch.ones_like(delta)
    total = torch.zeros(16, 24)
    for seed in range(drawn):
        rounded = Base.of(weight, seed).plus(slice(0, 16), delta, ones, torch.empty_like(delta))
        total += (rounded.float() - weight.float()) / delta.float()
    # Each is 0 or some 25 to 50, 1 on average: of one number the mean is told to 7 / sqrt(4,000), of all far better.
    assert abs(float(total.mean()) / drawn - 1) < 0.05
    assert float((total / drawn - 1).abs().max()) < 0.6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sum_is_one_of_its_two_neighbours_and_what_is_exact_stays(dtype: torch.dtype):
    weight = torch.randn(16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[3, 4:8] = torch.tensor([0.0, -0.0, 1e-30, -1e-7], dtype=dtype)
    delta, ones = torch.full_like(weight, 0.0123), torch.ones_like(weight)
    exact = weight.double() + delta.double()
    for seed in range(50):
        base = Base.of(weight, seed)
        rounded = base.plus(slice(0, 16), delta, ones, torch.empty_like(delta)).double()
        assert bool(((rounded - exact).abs() < torch.finfo(dtype).eps * exact.abs()).all())
        assert torch.equal(base.plus(slice(0, 16), torch.zeros_like(delta), ones, torch.empty_like(delta)), weight)
        again = base.plus(slice(8, 12), delta[8:12], ones[8:12], torch.empty_like(delta[8:12])).double()
        assert torch.equal(again, rounded[8:12])


@every_way
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_agree_within_the_rounding(by_ranks: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, by_ranks), monkeypatch)
    net, trainable, x = module(dtype=dtype), made(), inputs(32, dtype=dtype)
    expected = linear(x, net.weight, net.bias) + trainable.contribution(x)
    expected = [expected, *gradients(trainable, x, expected)]
    with frozen_linears([net]):
        found = trainable.summed(x, net.forward)
        assert found is not None
        assert found.dtype == dtype
        found = [found, *gradients(trainable, x, found)]
    assert all(one.dtype == other.dtype for one, other in zip(found, expected, strict=True))
    assert all(close(*pair, 2 * torch.finfo(dtype).eps) for pair in zip(found, expected, strict=True))


def learned(options: NetworkOptions, dtype: torch.dtype, steps: int = 120) -> Sequence[float]:
    """Losses of a training that brings a frozen Linear to another weight, of one rank more."""
    net, trainable = module(dtype=dtype), made(options)
    with torch.no_grad():
        trainable.w2_a.zero_()
    generator = torch.Generator().manual_seed(8)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((OUT, 1), (1, INTO)))
    goal = net.weight.float() + 0.02 * up @ down
    optimizer = torch.optim.Adam(trainable.parameters(), 3e-3)
    losses: list[float] = []
    with frozen_linears([net]):
        for step in range(steps):
            torch.manual_seed(step)
            x = torch.randn(64, INTO, generator=torch.Generator().manual_seed(step)).to(dtype).requires_grad_()
            y = trainable.summed(x, net.forward)
            y = net(x) + trainable.contribution(x) if y is None else y
            loss = (y.float() - linear(x.float(), goal, net.bias.float())).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_goes_the_same_way(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, False), monkeypatch)
    summed, beside = (learned(dataclasses.replace(OPTIONS, bypass_mode=mode), dtype) for mode in (False, True))
    assert beside[-1] < beside[0] / 2
    most = 1e-4 if dtype == torch.float32 else 0.02
    assert all(abs(one - other) <= most * other for one, other in zip(summed, beside, strict=True))


# In a network, and in how many products.


def _of_addmm(_: object, a: Sequence[int], b: Sequence[int], **__: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def counted(run) -> int:
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _of_addmm}) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(("way", "products"), [(Way(True, False), 3), (Way(False, False), 5)], ids=["sum", "beside"])
def test_the_products_of_a_step(way: Way, products: int, monkeypatch: pytest.MonkeyPatch):
    """Of the frozen one's size; besides, 8 of rank 1."""
    taking(way, monkeypatch)
    monkeypatch.setattr(hadamard, "cheaper_by_ranks", lambda *_: False)
    size, tokens = 128, 64
    options = NetworkOptions("loha", 1)
    trainable = TrainableLoHa.initial((size, size), options, torch.Generator().manual_seed(0))
    net = nn.Linear(size, size, bias=False).requires_grad_(False)
    x = torch.randn(tokens, size, requires_grad=True)
    with frozen_linears([net]):
        trainable.summed(x, net.forward)  # the module is tried once

        def step() -> None:
            y = trainable.summed(x, net.forward)
            (net(x) + trainable.contribution(x) if y is None else y).sum().backward()

        found = counted(step) / (2 * tokens * size * size)
    assert products <= found <= products + 8 / tokens


def block(model: nn.Module, x: Tensor) -> Tensor:
    layer = model.get_submodule("diffusion_model.layers.0")
    q, k, v = layer.attention.qkv(x).chunk(3, dim=-1)
    x = x + layer.attention.out(torch.tanh(q) * k + v)
    return x + layer.feed_forward.w2(torch.tanh(layer.feed_forward.w1(x)) * layer.feed_forward.w3(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
def test_a_network_on_frozen_modules(checkpointed: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """Rows of a fused weight, whose parts are several, stay beside it."""
    taking(Way(True, False), monkeypatch)
    found: list[list[Tensor]] = []
    for mode in (False, True):
        options = NetworkOptions("loha", 3, 2.0, bypass_mode=mode)
        model = model_of(z_image()).requires_grad_(False).to(dtype)
        network = Network.initial(choose_targets(described(z_image()), options), options)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(5))
        x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        with frozen_linears(linears), network.attached(model):
            torch.manual_seed(3)
            y = checkpoint(block, model, x, use_reentrant=False) if checkpointed else block(model, x)
            y.float().square().mean().backward()
        assert all("forward" not in vars(module) for module in linears)
        reached = [p.grad for p in network.parameters() if p.grad is not None]
        assert reached
        found.append([y.detach(), x.grad, *reached])
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert all(close(*pair, tolerance) for pair in zip(*found, strict=True))
    assert (dtype == torch.float32) or not torch.equal(found[0][0], found[1][0])


def test_a_checkpointed_block_rounds_alike_again_and_spares_its_last_product(monkeypatch: pytest.MonkeyPatch):
    taking(Way(True, False), monkeypatch)
    options, dtype = NetworkOptions("loha", 2, module_dropout=0.2, rank_dropout=0.2), torch.bfloat16
    nets = [nn.Linear(64, 64, bias=False).requires_grad_(False).to(dtype) for _ in range(3)]
    trainables = [TrainableLoHa.initial((64, 64), options, torch.Generator().manual_seed(n)) for n in range(3)]
    for trainable in trainables:
        torch.nn.init.normal_(trainable.w2_a, generator=torch.Generator().manual_seed(5))

    def run(x: Tensor) -> Tensor:
        for net, trainable in zip(nets, trainables, strict=True):
            y = None if trainable.left_out() else trainable.summed(x, net.forward)
            x = net(x) if y is None else y
        return x

    found: list[list[Tensor]] = []
    flops: list[int] = []
    with frozen_linears(nets):
        run(torch.randn(2, 64, dtype=dtype, requires_grad=True))
        for through in (run, lambda x: checkpoint(run, x, use_reentrant=False)):
            x = torch.randn(256, 64, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
            torch.manual_seed(1)
            y = through(x)
            flops.append(counted(lambda y=y: y.float().square().sum().backward()))
            found.append([y.detach(), x.grad, *(p.grad.clone() for t in trainables for p in t.parameters())])
            for trainable in trainables:
                trainable.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    product = 2 * 256 * 64 * 64
    assert 2 * product <= flops[1] - flops[0] < 2.5 * product


# Which way is taken.


@pytest.mark.parametrize(
    ("rank", "shape", "tokens", "expected"),
    [
        (8, (3072, 3072), 1024, Way(False, True)),
        (32, (3072, 3072), 1024, Way(True, False)),
        (32, (27648, 3072), 1024, Way(True, True)),
        (64, (27648, 3072), 4096, Way(True, False)),
    ],
)
def test_the_cheapest_way_on_a_processor(rank: int, shape: tuple[int, int], tokens: int, expected: Way):
    assert cheapest(tokens, rank, shape, torch.device("cpu"), torch.float32) == expected


def test_half_precision_on_a_gpu_takes_the_sum_where_tokens_outweigh_what_it_moves():
    def way(tokens: int) -> Way:
        return cheapest(tokens, 64, (3072, 3072), torch.device("cuda"), torch.bfloat16)

    assert not way(256).summed
    assert way(8192).summed


def test_a_kernel_makes_the_sum_cheaper():
    """For ranks and tokens where torch's kernels, which write and read both halves, move too much."""

    def way(rank: int, tokens: int, fused: bool) -> Way:
        return cheapest(tokens, rank, (5120, 5120), torch.device("cuda"), torch.bfloat16, fused)

    assert way(32, 4096, True) == Way(True, True)
    assert way(64, 1024, True) == Way(True, False)
    assert not way(32, 4096, False).summed
    assert not way(64, 1024, False).summed
    assert not way(8, 4096, True).summed
