"""Outputs and gradients of trainable adapters against dense ΔW by definition, differentiated by autograd."""

import dataclasses
import math

import pytest
import torch
from lyco_testing.zoo import CASES, Case
from torch import Tensor

from lyco_core.adapters import Full, LoKr
from lyco_core.adapters.factors import factorization
from lyco_core.errors import TrainError
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.trainable import TRAINABLES, Trainable, hadamard

SHAPES = [(48, 64), (320, 128), (60, 90)]
FORMS = {
    "lora": NetworkOptions("lora", 4, 2.0),
    "loha": NetworkOptions("loha", 4, 2.0),
    "loha by bands": NetworkOptions("loha", 24, 2.0),
    "lokr": NetworkOptions("lokr", 2, 3.0),
    "lokr of factor 4": NetworkOptions("lokr", 3, 3.0, factor=4),
    "lokr of factor 16": NetworkOptions("lokr", 1, 3.0, factor=16),
    "lokr, full": NetworkOptions("lokr", 200, 3.0),
}
every_form = pytest.mark.parametrize("options", FORMS.values(), ids=list(FORMS))
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def with_options(options: NetworkOptions, **changes) -> NetworkOptions:
    return dataclasses.replace(options, **changes)


def make(options: NetworkOptions, shape: tuple[int, int]) -> Trainable:
    made = TRAINABLES[options.algorithm].initial(shape, options, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    for parameter in made.parameters():  # the one that starts at 0 too
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return made


def dense(made: Trainable) -> Tensor:
    """ΔW, scale applied: FORMATS.md's table."""
    p, options = dict(made.named_parameters()), made.options
    scale = options.network_alpha / options.network_dim
    if options.algorithm == "lora":
        return p["up"] @ p["down"] * scale
    if options.algorithm == "loha":
        return (p["w1_a"] @ p["w1_b"]) * (p["w2_a"] @ p["w2_b"]) * scale
    if "w2" in p:
        return torch.kron(p["w1"], p["w2"])
    return torch.kron(p["w1"], p["w2_a"] @ p["w2_b"]) * scale


def gradients(made: Trainable, x: Tensor, y: Tensor) -> list[Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad(y, [x, *made.parameters()], weights))


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).detach().norm()) <= tolerance * float(expected.detach().norm())


def assert_same(made: Trainable, x: Tensor, found: Tensor, expected: Tensor) -> None:
    assert_close(found, expected)
    for one, other in zip(gradients(made, x, found), gradients(made, x, expected), strict=True):
        assert_close(one, other)


@every_form
@every_shape
@pytest.mark.parametrize("leading", [(5,), (2, 3), (2, 2, 3)], ids=str)
def test_outputs_and_gradients(options: NetworkOptions, shape: tuple[int, int], leading: tuple[int, ...]):
    made = make(options, shape)
    x = torch.randn(*leading, shape[1], generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert_same(made, x, made(x), x @ dense(made).t())


@every_form
def test_an_input_that_needs_no_gradient_gets_none(options: NetworkOptions):
    made = make(options, (48, 64))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(made(x).sum(), list(made.parameters()))
    expected = torch.autograd.grad((x @ dense(made).t()).sum(), list(made.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("elements", [1, 700, 2**22], ids="limit {}".format)
@pytest.mark.parametrize("rank", [3, 24])
def test_both_ways_of_a_loha_in_chunks_of_every_size(rank: int, elements: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hadamard, "_ELEMENTS", elements)
    made = make(NetworkOptions("loha", rank, 2.0), (40, 36))
    x = torch.randn(7, 36, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert hadamard.cheaper_by_ranks(7, rank, 40, 36) == (rank == 3)
    assert_same(made, x, made(x), x @ dense(made).t())


@pytest.mark.parametrize(("rank", "by_ranks"), [(16, True), (32, True), (64, False)])
def test_a_large_layer_goes_by_ranks_up_to_a_rank_of_some_50(rank: int, by_ranks: bool):
    assert hadamard.cheaper_by_ranks(4096, rank, 5120, 5120) == by_ranks


@pytest.mark.parametrize("form", [f for f in FORMS if f != "lora"])
@pytest.mark.parametrize("shape", [(320, 128), (128, 320)])
def test_little_more_than_the_input_and_the_factors_is_kept(form: str, shape: tuple[int, int]):
    made = make(FORMS[form], shape)
    x = torch.randn(64, shape[1], requires_grad=True)
    own = {t.untyped_storage().data_ptr() for t in (x, *made.parameters())}
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made(x)
    assert kept
    others = sum(t.numel() for t in kept if t.untyped_storage().data_ptr() not in own and t.numel() > 1)
    assert others <= (x.numel() / 2 if form.startswith("lokr") else 0)


@every_form
def test_half_precision_in_and_out_and_gradients_in_float32(options: NetworkOptions):
    made = make(options, (48, 64))
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    found, expected = made(x), x.float() @ dense(made).t()
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, 0.02)
    for one, other in zip(gradients(made, x, found), gradients(made, x, expected), strict=True):
        assert_close(one.float(), other.float(), 0.02)
    assert all(p.dtype == torch.float32 for p in made.parameters())


@pytest.mark.parametrize("form", [f for f in FORMS if f != "lora"])
@every_shape
def test_rank_dropout_leaves_out_rows_of_the_change(form: str, shape: tuple[int, int]):
    made = make(with_options(FORMS[form], rank_dropout=0.3), shape)
    x = torch.randn(2, 5, shape[1], generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.manual_seed(7)
    found = made(x)
    torch.manual_seed(7)
    kept = (torch.rand(shape[0]) > 0.3).float()
    assert 0 < kept.sum() < shape[0]
    assert_same(made, x, found, x @ (dense(made) * kept.unsqueeze(1)).t() / 0.7)
    assert_same(made, x, made.eval()(x), x @ dense(made).t())


@pytest.mark.parametrize("leading", [(3,), (3, 5), (3, 2, 5)], ids=str)
def test_rank_dropout_of_a_lora_leaves_out_ranks_of_each_sample(leading: tuple[int, ...]):
    made = make(NetworkOptions("lora", 4, 2.0, rank_dropout=0.5), (48, 64))
    x = torch.randn(*leading, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.manual_seed(7)
    found = made(x)
    torch.manual_seed(7)
    kept = (torch.rand(3, 4) > 0.5).float().view(3, *[1] * (len(leading) - 1), 4)
    assert_same(made, x, found, (x @ made.down.t() * kept) @ made.up.t() * (2.0 / 4 / 0.5))
    assert_same(made, x, made.eval()(x), x @ dense(made).t())


def test_network_dropout_is_a_loras_alone():
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    made = make(NetworkOptions("lora", 4, 2.0, network_dropout=0.4, rank_dropout=0.2), (48, 64))
    torch.manual_seed(7)
    found = made(x)
    torch.manual_seed(7)
    hidden = torch.nn.functional.dropout(x @ made.down.t(), 0.4)
    kept = (torch.rand(3, 4) > 0.2).float().unsqueeze(1)
    assert_same(made, x, found, (hidden * kept) @ made.up.t() * (2.0 / 4 / 0.8))
    for algorithm in ("loha", "lokr"):
        made = make(NetworkOptions(algorithm, 2, 3.0, network_dropout=0.4), (48, 64))
        assert_close(made(x), x @ dense(made).t())


@every_form
def test_module_dropout_leaves_a_step_out(options: NetworkOptions):
    made = make(with_options(options, module_dropout=0.25), (48, 64))
    x = torch.randn(1, 64)
    torch.manual_seed(0)
    expected = [bool(torch.rand(1) < 0.25) for _ in range(50)]
    torch.manual_seed(0)
    assert [made(x) is None for _ in range(50)] == expected
    assert True in expected
    made.eval()
    assert not any(made(x) is None for _ in range(50))


@every_form
@every_shape
def test_the_adapter_is_what_was_trained(options: NetworkOptions, shape: tuple[int, int]):
    made = make(options, shape)
    adapter = made.adapter()
    assert_close(adapter.delta_weight(), dense(made).detach())
    assert not any(tensor.requires_grad for tensor in adapter.tensors.values())
    before = adapter.delta_weight()
    with torch.no_grad():
        next(iter(made.parameters())).add_(1)
    assert torch.equal(adapter.delta_weight(), before)
    again = TRAINABLES[options.algorithm].continued(adapter, options)
    assert again.state_dict().keys() == made.state_dict().keys()
    assert_close(again.adapter().delta_weight(), before)
    assert again.scale == made.scale


FLAT = [c for c in CASES if len(c.shape) == 2 and not c.name.endswith("flat") and c.make().algorithm in TRAINABLES]


@pytest.mark.parametrize("case", FLAT, ids=lambda case: case.name)
def test_any_linear_adapter_goes_on(case: Case):
    """Also those that Musubi never writes: no alpha, a low-rank W1."""
    adapter = case.make()
    made = TRAINABLES[adapter.algorithm].continued(adapter, NetworkOptions(adapter.algorithm))
    assert_close(made.adapter().delta_weight(), adapter.delta_weight())
    x = torch.randn(3, case.shape[1])
    assert_close(made(x), x @ adapter.delta_weight().t())
    assert math.isfinite(float(made.alpha))
    assert not isinstance(adapter, LoKr) or {"w1_a", "w1_b"}.isdisjoint(dict(made.named_parameters()))


def test_what_cannot_be_trained_is_not_gone_on_from():
    with pytest.raises(
        TrainError, match="its algorithm is difference, and LoRA is to be trained; that cannot be trained on here"
    ):
        TRAINABLES["lora"].continued(Full(torch.ones(4, 4)), NetworkOptions("lora"))


@pytest.mark.parametrize(
    "case", [c for c in CASES if len(c.shape) == 4 and c.make().algorithm in TRAINABLES], ids=lambda case: case.name
)
def test_convolutions_do_not(case: Case):
    adapter = case.make()
    with pytest.raises(TrainError, match="only linear modules are trained"):
        TRAINABLES[adapter.algorithm].continued(adapter, NetworkOptions(adapter.algorithm))


def test_another_algorithm_does_not():
    adapter = make(FORMS["lora"], (48, 64)).adapter()
    with pytest.raises(
        TrainError, match=r"its algorithm is LoRA, and LoHa is to be trained; set network_module to networks\.lora"
    ):
        TRAINABLES["loha"].continued(adapter, FORMS["loha"])


@every_form
def test_a_state_brings_its_alpha(options: NetworkOptions):
    made, other = make(options, (48, 64)), make(with_options(options, network_alpha=7.0), (48, 64))
    other.load_state_dict(made.state_dict())
    assert other.scale == made.scale
    x = torch.randn(3, 64)
    assert torch.equal(other(x), made(x))


@every_form
def test_trainable_when_made_in_inference_mode(options: NetworkOptions):
    with torch.inference_mode():
        made = TRAINABLES[options.algorithm].initial((48, 64), options, torch.Generator().manual_seed(0))
        again = TRAINABLES[options.algorithm].continued(made.adapter(), options)
    for each in (made, again):
        each(torch.randn(3, 64)).sum().backward()
        assert all(p.grad is not None for p in each.parameters())


@every_form
def test_nothing_is_changed_at_the_start_and_the_seed_decides(options: NetworkOptions):
    def start(seed: int) -> Trainable:
        return TRAINABLES[options.algorithm].initial((48, 64), options, torch.Generator().manual_seed(seed))

    assert not start(1)(torch.randn(3, 64)).any()
    first, again, other = (torch.cat([p.detach().flatten() for p in start(s).parameters()]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


ZERO = {"lora": "up", "loha": "w2_a", "lokr": "w2_b", "full": "w2"}


def test_first_values_are_distributed_as_musubis():
    def start(*options, **more) -> dict[str, Tensor]:
        made = NetworkOptions(*options, **more)
        trainable = TRAINABLES[made.algorithm].initial((640, 960), made, torch.Generator().manual_seed(0))
        return {name: p.detach() for name, p in trainable.named_parameters()}

    lora, loha, lokr = start("lora", 32), start("loha", 32), start("lokr", 16, factor=8)
    full = start("lokr", 200, factor=8)
    for parameters, name in ((lora, "up"), (loha, "w2_a"), (lokr, "w2_b"), (full, "w2")):
        assert not parameters[name].any()
    for tensor, std in ((loha["w1_a"], 0.1), (loha["w1_b"], 1.0), (loha["w2_b"], 1.0)):
        assert abs(float(tensor.std()) / std - 1) < 0.03
        assert float(tensor.abs().max()) > 3 * std  # normal, not uniform
    for tensor, bound in (
        (lora["down"], 960**-0.5),
        (lokr["w1"], 8**-0.5),
        (lokr["w2_a"], 0.25),
        (full["w1"], 8**-0.5),
    ):
        assert 0.9 * bound < float(tensor.abs().max()) <= bound
        assert abs(float(tensor.std()) / bound * 3**0.5 - 1) < 0.15


@pytest.mark.parametrize(
    ("shape", "rank", "factor", "full"),
    [
        ((64, 48), 3, -1, False), ((64, 48), 4, -1, True), ((64, 64), 7, 4, False), ((64, 64), 8, 4, True),
        ((30, 70), 4, -1, False), ((30, 70), 5, -1, True),
    ],
)  # fmt: skip
def test_w2_is_one_matrix_where_a_product_has_as_many_numbers(
    shape: tuple[int, int], rank: int, factor: int, full: bool
):
    made = make(NetworkOptions("lokr", rank, 16.0, factor=factor), shape)
    assert ("w2" in dict(made.named_parameters())) == full
    assert made.scale == (1.0 if full else 16.0 / rank)
    assert float(made.alpha) == (rank if full else 16.0)


@pytest.mark.parametrize(
    ("dimension", "factor", "expected"),
    [
        (64, 16, (4, 16)), (64, -1, (8, 8)), (512, -1, (16, 32)), (5120, -1, (64, 80)), (13824, -1, (108, 128)),
        (3072, 4, (4, 768)), (3072, 5, (4, 768)), (9216, 16, (16, 576)), (250, 16, (10, 25)), (360, 12, (12, 30)),
        (7, 4, (1, 7)), (16, 4, (4, 4)), (4, 8, (2, 2)), (1, -1, (1, 1)), (3072, -1, (48, 64)), (512, 4, (4, 128)),
    ],
)  # fmt: skip
def test_factors_are_lycoris_and_musubis(dimension: int, factor: int, expected: tuple[int, int]):
    assert factorization(dimension, factor) == expected
