"""Attached adapters compute what the merged weights would, and leave nothing behind: on plain torch modules."""

import copy
import gc
import math
import weakref

import pytest
import torch
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE
from torch import nn

from lyco_core.adapter_set import AdapterSet
from lyco_core.adapters import Adapter, DoRA, Full, LoKr, LoRA
from lyco_core.attachment import attach
from lyco_core.errors import AdapterError, LycoError, PlacementError
from lyco_core.selection import Selection

FORMS = [case for case in (*CASES, *ON_BASE) if len(case.shape) > 1]


def adapters_of(**adapters: Adapter) -> AdapterSet:
    """A set under a module's own names, two underscores for a dot."""
    named = {name.replace("__", "."): adapter for name, adapter in adapters.items()}
    return AdapterSet(named, {path: path for path in named}, None, {})


def module_for(shape: tuple[int, ...], **convolution: object) -> nn.Module:
    """A Linear, or a convolution, with such a weight, in float64."""
    torch.manual_seed(0)
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0]).double()
    kind = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[len(shape)]
    return kind(shape[1], shape[0], shape[2:], **convolution).double()


def input_of(module: nn.Module) -> torch.Tensor:
    if isinstance(module, nn.Linear):
        return normal(2, 5, module.in_features).double()
    return normal(2, module.in_channels, *[9, 8, 7][: len(module.kernel_size)]).double()


def merged(module: nn.Module, *changes: tuple[str, Adapter, float]) -> nn.Module:
    """A copy with the adapters in its parameters, and nothing beside them."""
    changed = copy.deepcopy(module)
    for part in changed.modules():
        part.__dict__.pop("forward", None)
    for name, adapter, strength in changes:
        adapter.add_to_(changed.get_parameter(name).data, strength)
    return changed


def close(found: torch.Tensor, expected: torch.Tensor, without: torch.Tensor) -> bool:
    """Relative to the change."""
    return bool((found - expected).norm() <= 1e-6 * (expected - without).norm())


@pytest.mark.parametrize("strength", [1.0, -0.4])
@pytest.mark.parametrize("case", FORMS, ids=lambda case: case.name)
def test_every_form_of_every_algorithm(case, strength: float):
    """Linears and convolutions, beside their weights as in them, and exactly as before once it is off."""
    model = nn.Sequential(module_for(case.shape))
    adapter, x = case.make(), input_of(model[0])
    before, state = model(x), list(model[0].__dict__)
    expected = merged(model, ("0.weight", adapter, strength))(x)
    with attach(model, adapters_of(**{"0": adapter}), strength) as attached:
        assert attached.modules == ("0",)
        assert attached.idle == ("0",)
        assert close(model(x), expected, before)
        assert attached.idle == ()
    assert torch.equal(model(x), before)
    assert list(model[0].__dict__) == state


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"padding": "same", "padding_mode": "circular", "bias": False},
        {"dilation": 2, "padding": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
@pytest.mark.parametrize("case", [c for c in FORMS if c.shape == (10, 6, 3, 3)], ids=lambda case: case.name)
def test_convolutions_of_every_kind(case, options: dict):
    model = nn.Sequential(module_for(case.shape, **options))
    adapter, x = case.make(), input_of(model[0])
    before, expected = model(x), merged(model, ("0.weight", adapter, 0.7))(x)
    with attach(model, adapters_of(**{"0": adapter}), 0.7):
        assert close(model(x), expected, before)
        assert close(model(x[0]), expected[0], before[0])  # without a batch


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of even kernels, which costs a copy
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_convolutions_of_every_dimension(dimensions: int):
    shape = (8, 6, *(4, 2, 3)[:dimensions])
    model = nn.Sequential(module_for(shape, padding="same", stride=1))
    adapter = LoRA(normal(8, 2), normal(2, math.prod(shape[1:])), alpha=1.0)
    x = input_of(model[0])
    before, expected = model(x), merged(model, ("0.weight", adapter, 1.0))(x)
    with attach(model, adapters_of(**{"0": adapter})):
        assert close(model(x), expected, before)


def lora(rows: int = 12, columns: int = 20, seed: int = 0) -> LoRA:
    return LoRA(normal(rows, 3) + seed, normal(3, columns), alpha=2.0)


def dora(axis: int = 0) -> DoRA:
    inner = lora(seed=1)
    return DoRA.of(inner, normal(*((12, 1) if axis == 0 else (1, 20))).abs() + 1)


def linear(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 12, bias=bias)).double()


def test_biases_change_too():
    model, bias = linear(), Full(normal(12))
    found = adapters_of(**{"0": dora(), "0.bias": bias})
    x = input_of(model[0])
    before = model(x)
    expected = merged(model, ("0.weight", dora(), 0.5), ("0.bias", bias, 0.5))(x)
    with attach(model, found, 0.5) as attached:
        assert close(model(x), expected, before)
        attached.strength = -1.0
        expected = merged(model, ("0.weight", dora(), -1.0), ("0.bias", bias, -1.0))(x)
        assert close(model(x), expected, before)
        attached.strength = 0.0
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("axis", [0, 1])
def test_several_in_order_and_off_in_any(axis: int):
    """A DoRA's norms are those of what the adapters before it leave."""
    model, first, second = linear(), lora(), dora(axis)
    x = input_of(model[0])
    before = model(x)

    def expected(*changes: tuple[Adapter, float]) -> torch.Tensor:
        return merged(model, *(("0.weight", adapter, strength) for adapter, strength in changes))(x)

    one = attach(model, adapters_of(**{"0": first}), 0.6)
    two = attach(model, adapters_of(**{"0": second}), 0.8)
    assert close(model(x), expected((first, 0.6), (second, 0.8)), before)
    one.strength = -2.0
    assert close(model(x), expected((first, -2.0), (second, 0.8)), before)
    one.remove()
    assert close(model(x), expected((second, 0.8)), before)
    three = attach(model, adapters_of(**{"0": first}), 0.6)
    assert close(model(x), expected((second, 0.8), (first, 0.6)), before)
    two.remove()
    two.remove()
    two.strength = 3.0  # of nothing
    assert close(model(x), expected((first, 0.6)), before)
    three.remove()
    assert torch.equal(model(x), before)
    assert "forward" not in model[0].__dict__


def test_nothing_is_kept_once_it_is_off():
    model, found = linear(), adapters_of(**{"0": dora()})
    factor = weakref.ref(found.adapters["0"].tensors["magnitude"])
    attached = attach(model, found)
    assert model.state_dict().keys() == {"0.weight", "0.bias"}
    model(input_of(model[0]))
    attached.remove()
    del attached, found
    gc.collect()
    assert factor() is None


def test_who_wraps_the_forward_later_keeps_it():
    """accelerate does so, and goes on calling what it found."""
    model = linear()
    x = input_of(model[0])
    before = model(x)
    attached = attach(model, adapters_of(**{"0": lora()}))
    ours = model[0].forward
    model[0].forward = lambda x: ours(x) * 2
    attached.remove()
    assert torch.equal(model(x), before * 2)
    again = attach(model, adapters_of(**{"0": lora()}))
    assert not torch.equal(model(x), before * 2)
    again.remove()
    assert torch.equal(model(x), before * 2)


def test_it_follows_the_module_to_another_dtype():
    model = linear()
    with attach(model, adapters_of(**{"0": dora()})):
        for dtype, near in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
            model.to(dtype)
            x = input_of(model[0]).to(dtype)
            expected = merged(model.double(), ("0.weight", dora(), 1.0))
            wanted = expected(x.double())
            found = model.to(dtype)(x)
            assert found.dtype == dtype
            assert (found.double() - wanted).norm() < near * wanted.norm()


def test_it_follows_the_module_to_another_device():
    """The one that every machine has, whose numbers are none."""
    model = linear()
    with attach(model, adapters_of(**{"0": lora()})) as attached:
        model(input_of(model[0]))
        model.to("meta")
        x = torch.empty(2, 20, dtype=torch.float64, device="meta")
        assert model(x).device.type == "meta"
        attached.strength = 0.5
        assert model(x).device.type == "meta"


def test_gradients_flow_past_it():
    model, adapter = linear(), dora()
    x = input_of(model[0]).requires_grad_()
    (right,) = torch.autograd.grad(merged(model, ("0.weight", adapter, 1.0))(x).square().sum(), x)
    with attach(model, adapters_of(**{"0": adapter})):
        (found,) = torch.autograd.grad(model(x).square().sum(), x)
    assert (found - right).norm() < 1e-6 * right.norm()


def test_compiled_graphs_see_each_change():
    model = linear()
    x = input_of(model[0])
    compiled = torch.compile(model, backend="eager")
    before = compiled(x)
    with attach(compiled, adapters_of(**{"0": lora()}), 0.5) as attached:
        assert close(compiled(x), merged(linear(), ("0.weight", lora(), 0.5))(x), before)
        attached.strength = 1.0
        assert close(compiled(x), merged(linear(), ("0.weight", lora(), 1.0))(x), before)
    assert torch.equal(compiled(x), before)


def test_parts_of_it_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20)).double()
    found = adapters_of(**{"0": lora(20), "1": lora(20)})
    x = input_of(model[0])
    before = model(x)
    selection = Selection.of(exclude=["0"], block_strengths=[("1", 0.5)])
    with attach(model, found, 0.5, selection=selection) as attached:
        assert attached.modules == ("1",)
        assert close(model(x), merged(model, ("1.weight", lora(20), 0.25))(x), before)


class Other(nn.Module):
    """What nothing acts beside, and what is no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 12)
        self.norm = nn.LayerNorm(12)
        self.grouped = nn.Conv2d(4, 4, 3, groups=4)
        self.attention = nn.MultiheadAttention(12, 2)
        self.table = nn.Parameter(torch.zeros(3, 12))


@pytest.mark.parametrize(
    ("path", "adapter", "said"),
    [
        ("norm", Full(normal(12)), r"norm: the weight of a LayerNorm"),
        ("norm.bias", Full(normal(12)), r"norm.bias: the bias of a LayerNorm"),
        ("grouped", Full(normal(4, 1, 3, 3)), r"grouped: the weight of a grouped Conv2d"),
        ("attention.out_proj", lora(12, 12), r"out_proj: MultiheadAttention multiplies by it without calling"),
        ("table", Full(normal(3, 12)), r"table: the table of a Other"),
        ("nowhere", lora(), r"1 of 2 modules are not in the model \(nowhere\)"),
        ("linear.bias", Full(normal(7)), r"have another shape \(linear.bias: the model's weight is \[12\], the"),
    ],
)
def test_what_has_no_place_is_refused_by_name(path: str, adapter: Adapter, said: str):
    model = Other()
    untouched = copy.copy(model.linear.__dict__)
    found = adapters_of(**{"linear": lora(), path: adapter})
    with pytest.raises(PlacementError, match=rf"{said}.*take the rest alone, or exclude these: "):
        attach(model, found)
    assert model.linear.__dict__ == untouched
    with attach(model, found, partial=True) as attached:
        assert attached.modules == ("linear",)
        assert path in attached.left_out
    with attach(model, found, selection=Selection.of(exclude=[path])) as attached:
        assert attached.modules == ("linear",)
        assert attached.left_out == ""
    with pytest.raises(PlacementError, match=said.replace("of 2", "of 1")):
        attach(model, adapters_of(**{path: adapter}), partial=True)


def test_an_outline_has_no_numbers_to_act_with():
    outline = adapters_of(**{"0": lora().to("meta")})
    with pytest.raises(AdapterError, match="0: its numbers are not read; load the file, not its outline"):
        attach(linear(), outline)


def test_all_or_nothing():
    """What one module refuses is not put beside the others, and a strength that cannot be is not set."""
    model = nn.Sequential(nn.Linear(20, 12), nn.Linear(20, 12)).double()
    model[1].weight = nn.Parameter(model[1].weight.to("meta"))
    x = input_of(model[0])
    before = model[0](x)
    found = adapters_of(**{"0": dora(), "1": dora()})
    with pytest.raises(AdapterError, match=r"1: its weight is on the meta device .* attach it before"):
        attach(model, found)
    assert torch.equal(model[0](x), before)
    with attach(model, adapters_of(**{"0": lora(), "1": lora()}), 0.5) as attached:  # those need no weight
        with pytest.raises(LycoError, match="strength is nan, expected a finite number"):
            attached.strength = math.nan
        assert attached.strength == 0.5


class Packed(nn.Linear):
    """A Linear whose weight is stored as other numbers, as bitsandbytes and GGUF have it."""

    def __init__(self) -> None:
        super().__init__(20, 12)
        self.wide = self.weight.detach().double()
        self.weight = nn.Parameter(torch.zeros(120, 1, dtype=torch.uint8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.wide, self.bias.double())


def test_quantized_weights_stay_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(Packed())
    plain = linear()
    plain.load_state_dict({"0.weight": model[0].wide, "0.bias": model[0].bias})
    x = input_of(plain[0])
    adapter = LoKr(w1=normal(3, 4), w2=normal(4, 5))
    expected = merged(plain, ("0.weight", adapter, 0.5))(x)
    with attach(model, adapters_of(**{"0": adapter}), 0.5):
        assert close(model(x), expected, plain(x))
    with pytest.raises(AdapterError, match=r"0: its weight is torch.uint8 \(quantized\)"):
        attach(model, adapters_of(**{"0": dora()}))


def test_it_says_what_it_is():
    model = linear()
    with attach(model, adapters_of(**{"0": lora()}), 0.5) as attached:
        assert repr(attached) == "Attachment(1 LoRA beside 1 module, strength 0.5)"
