"""What is beside a weight acts wherever ComfyUI computes it, and stops the sampling where it would not."""

import gc
import importlib
import logging

import pytest
import torch
from lyco_testing import quantized_models
from lyco_testing.quantized_models import predict
from lyco_testing.relative import relative
from lyco_testing.sampling import sampled
from safetensors.torch import save_file

BESIDE = "apply while sampling"
FFN = "diffusion_model.blocks.0.ffn.2"


@pytest.fixture
def wan(tmp_path, loras, host):
    """format -> (MODEL, the same with an adapter beside its weights, the exact change of its output)."""
    tensors, changes = quantized_models.adapter("wan", "lokr")
    save_file(tensors, loras / "a.safetensors")

    def made(name: str):
        if reason := quantized_models.why_not(name):
            pytest.skip(reason)
        file, numbers = quantized_models.base_file(tmp_path, "wan", name)
        model = quantized_models.load("wan", file)
        plain = predict("wan", quantized_models.reference("wan", numbers))
        change = predict("wan", quantized_models.reference("wan", numbers, changes)) - plain
        return model, load(host, model), change

    return made


def load(host, model, strength: float = 1.0):
    return host.load_onto(model, None, "a.safetensors", strength, partial=False, mode=BESIDE).model


def replaced_feed_forward(monkeypatch, compute) -> None:
    """Let Wan's feed-forward compute its second Linear by `compute(linear, x)`."""
    import comfy.ldm.wan.model as wan_model

    if not hasattr(wan_model, "WanFeedForward"):
        pytest.skip("this ComfyUI computes Wan's feed-forward by calls alone")
    monkeypatch.setattr(wan_model.WanFeedForward, "forward", lambda self, x: compute(self[2], self[0](x)))


def gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def newer(linear, x, *, fp16: bool):
    """What ComfyUI 0.36 to 0.38 ask before they compute a Linear themselves; they do it with what is before and after.

    A stand-in: the questions are theirs, in their order, and the arithmetic beneath is the plain one.
    """
    import comfy.ops

    weight = linear.weight
    full_precision = getattr(linear, "_full_precision_mm", False)
    quantized = isinstance(weight, comfy.ops.QuantizedTensor)
    if quantized and weight._layout_cls == "TensorWiseINT8Layout" and not full_precision:
        return torch.nn.functional.linear(gelu(x), weight.dequantize(), linear.bias)
    if fp16 and not quantized and not full_precision:
        weight, bias, _ = comfy.ops.cast_bias_weight(linear, x, offloadable=True)
        return torch.nn.functional.linear(gelu(x), weight, bias)
    return torch.zeros_like(out := linear(gelu(x))) + out


@pytest.mark.parametrize("name", ["int8_tensor", "int8_row", "int8_convrot", "float32", "bf16", "fp8_scaled"])
@pytest.mark.parametrize("fp16", [False, True])
def test_a_fused_caller_calls_what_has_adapters(name, fp16, wan, monkeypatch):
    replaced_feed_forward(monkeypatch, lambda linear, x: newer(linear, x, fp16=fp16))
    model, with_adapter, change = wan(name)
    feed_forward = model.model.get_submodule(FFN)
    before = [feed_forward.__dict__.get(name) for name in ("forward", "_full_precision_mm")]
    base = predict("wan", model)
    assert relative(sampled("wan", with_adapter) - base, change) < 0.05
    assert torch.equal(predict("wan", model), base)
    assert [feed_forward.__dict__.get(name) for name in ("forward", "_full_precision_mm")] == before
    assert getattr(feed_forward.weight, "_layout_cls", "TensorWise").startswith("Tensor")


def test_the_int8_layout_of_another_name_computes_alike(wan):
    model, with_adapter, _ = wan("int8_convrot")
    module = model.model.get_submodule(FFN)
    x = quantized_models.normal(1, 3, module.in_features)
    plain = module(x)
    predict("wan", with_adapter)
    seat = module.forward.__self__
    assert module.weight._layout_cls != "TensorWiseINT8Layout"
    assert torch.equal(seat.original(x), plain)
    assert torch.equal(module.weight.dequantize(), seat.module.weight.dequantize())


def test_sampling_stops_where_a_module_is_passed_by(wan, monkeypatch):
    replaced_feed_forward(
        monkeypatch, lambda linear, x: torch.nn.functional.linear(gelu(x), linear.weight.dequantize(), linear.bias)
    )
    _, with_adapter, _ = wan("int8_row")
    with pytest.raises(Exception, match=r"2 adapters were not computed \(.*blocks.0.ffn.2.*choose the mode 'patch the"):
        sampled("wan", with_adapter)


def test_sampling_stops_where_only_the_cast_weight_is_used(wan, monkeypatch):
    import comfy.ops

    def fused(linear, x):
        weight, bias = comfy.ops.cast_bias_weight(linear, x)
        return torch.nn.functional.linear(gelu(x), weight, bias)

    replaced_feed_forward(monkeypatch, fused)
    _, with_adapter, _ = wan("float32")
    with pytest.raises(Exception, match="2 adapters were not computed"):
        sampled("wan", with_adapter)


def test_a_module_that_is_not_computed_is_no_fault(wan, monkeypatch, caplog):
    replaced_feed_forward(monkeypatch, lambda linear, x: x[..., : linear.out_features])
    _, with_adapter, _ = wan("fp8_scaled")
    with caplog.at_level(logging.INFO, "lyco"):
        sampled("wan", with_adapter)
        assert caplog.text.count("2 modules with an adapter are not computed in this model call") == 1
        sampled("wan", with_adapter, load=False)
    assert caplog.text.count("are not computed") == 1


@pytest.mark.parametrize("name", ["int8_convrot", "fp8_scaled"])
def test_a_graph_that_was_compiled_before_the_adapter(name, wan, host):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model, _, change = wan(name)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager")
    base = sampled("wan", compiled)
    assert relative(sampled("wan", load(host, compiled)) - base, change) < 0.05
    assert torch.equal(sampled("wan", compiled), base)
    torch._dynamo.reset()


def test_a_compiled_graph_meets_another_dtype(tmp_path, loras, host):
    """The factors are brought there once, which is no part of a graph: torch 2.4 and 2.11 fail in one that does it."""
    width, path = quantized_models.WIDTH, "diffusion_model.blocks.0.self_attn.q"
    dora = {
        f"{path}.lora_up.weight": quantized_models.normal(1, width, 4) / 10,
        f"{path}.lora_down.weight": quantized_models.normal(2, 4, width) / 4,
        f"{path}.dora_scale": 1 + quantized_models.normal(3, 1, width) / 10,
    }
    save_file(dora, loras / "a.safetensors")
    file, _ = quantized_models.base_file(tmp_path, "wan", "fp8_raw")
    predict("wan", load(host, model := quantized_models.load("wan", file)))
    module = model.model.get_submodule(path)
    compiled = torch.compile(torch.nn.Sequential(module), backend="eager")
    x = quantized_models.normal(4, 3, width)
    with torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float32):
            assert torch.equal(compiled(x.to(dtype)), module(x.to(dtype)))
    torch._dynamo.reset()


def test_sampling_stops_where_a_compiled_graph_ignores_the_adapter(wan, host, monkeypatch):
    """A graph that does not ask for `forward`: what hooks have always met."""
    model, with_adapter, _ = wan("fp8_scaled")
    frozen = predict("wan", model)
    inner = model.model.diffusion_model

    def forward(*args, **kwargs):
        stance = torch._dynamo.eval_frame._stance.stance if hasattr(torch._dynamo.eval_frame, "_stance") else ""
        return type(inner).forward(inner, *args, **kwargs) if stance == "force_eager" else frozen

    monkeypatch.setitem(inner.__dict__, "forward", forward)
    with pytest.raises(Exception, match=r"20 adapters were not computed .* by a graph that was compiled without them"):
        sampled("wan", with_adapter)


def test_a_forgotten_clone_takes_nothing_away(wan):
    """Clones believe to be injected if the original is, and take everything off when they end (0.30)."""
    model, with_adapter, change = wan("fp8_scaled")
    base = predict("wan", model)
    expected = predict("wan", with_adapter)
    clone = with_adapter.clone()
    assert clone.is_injected
    clone.detach(unpatch_all=False)  # what its end does since 0.30
    del clone
    gc.collect()
    found = sampled("wan", with_adapter, load=False)
    assert torch.equal(found, expected)
    assert relative(found - base, change) < 1e-4
    assert torch.equal(predict("wan", model), base)


def test_two_models_of_one_adapter_keep_it_each(wan):
    """MultiGPU CFG Split: clones with models of their own share the injection."""
    _, with_adapter, change = wan("int8_convrot")
    other = with_adapter.clone()
    other.model = wan("int8_convrot")[0].model
    for first, second in ((with_adapter, other), (other, with_adapter)):
        first.inject_model()
        second.inject_model()
        for one in (first, second):
            found = sampled("wan", one, load=False)
            one.eject_model()
            plain = sampled("wan", one, load=False)
            one.inject_model()
            assert relative(found - plain, change) < 0.05
        first.eject_model()
        second.eject_model()


def test_a_clone_with_more_replaces_what_was_there(wan, host):
    model, with_adapter, change = wan("fp8_scaled")
    base = predict("wan", model)
    predict("wan", with_adapter)
    less = load(host, load(host, with_adapter, 0.5), -1.5)
    assert less.is_injected  # as a clone of what is loaded
    assert relative(predict("wan", less), base) < 1e-4
    assert relative(predict("wan", with_adapter) - base, change) < 1e-4


def test_somebody_wraps_forward_after_us(wan):
    model, with_adapter, _ = wan("fp8_scaled")
    base = predict("wan", model)
    expected = predict("wan", with_adapter)
    module = model.model.get_submodule(FFN)
    ours = module.forward
    module.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    assert torch.equal(sampled("wan", with_adapter, load=False), expected)
    with_adapter.eject_model()
    assert torch.equal(predict("wan", model), base)


def test_the_device_may_change_in_the_middle(wan):
    """Factors go where the module computes, whenever it does so elsewhere, or in another dtype."""
    model, with_adapter, _ = wan("fp8_scaled_full_mm")
    predict("wan", with_adapter)
    module = model.model.get_submodule(FFN)
    x = quantized_models.normal(1, 2, module.in_features)
    single = module(x)
    half = module(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert relative(half.float(), single) < 2e-2
    assert torch.equal(module(x), single)


def test_stock_patches_beneath_a_dora(tmp_path, loras, host):
    """Norms are those of the weight as it is once ComfyUI has patched it."""
    torch.manual_seed(4)
    width = quantized_models.WIDTH
    path = "diffusion_model.blocks.0.self_attn.q"
    dora = {
        f"{path}.lora_up.weight": quantized_models.normal(1, width, 4) / 10,
        f"{path}.lora_down.weight": quantized_models.normal(2, 4, width) / 4,
        f"{path}.dora_scale": 1 + quantized_models.normal(3, width, 1) / 10,
    }
    save_file(dora, loras / "dora.safetensors")
    file, numbers = quantized_models.base_file(tmp_path, "wan", "float32")
    change = quantized_models.normal(5, width, width) / 10
    expected_base = quantized_models.reference("wan", numbers, {"blocks.0.self_attn.q": change.double()})
    model = quantized_models.load("wan", file)
    model.add_patches({f"{path}.weight": ("diff", (change,))}, 1.0)
    one = host.load_onto(model, None, "dora.safetensors", 0.7, partial=False, mode=BESIDE).model
    right = host.load_onto(expected_base, None, "dora.safetensors", 0.7, partial=False).model
    expected = predict("wan", right) - predict("wan", expected_base)
    before = predict("wan", model)
    assert relative(predict("wan", one) - before, expected) < 1e-4
    assert torch.equal(predict("wan", model), before)


def feed_forwards(operations) -> dict[str, tuple[torch.nn.Module, str]]:
    """This ComfyUI's own classes that fold an activation into their second Linear, and its name in them."""
    import comfy.ldm.lightricks.model as ltx
    import comfy.ldm.wan.model as wan_model

    given = {"dtype": torch.float32, "device": "cpu", "operations": operations}
    made = {"ltx": (ltx.FeedForward(256, 256, mult=2, **given), "net.2")}
    if hasattr(wan_model, "WanFeedForward"):
        first, second = operations.Linear(256, 512), operations.Linear(512, 256)
        made["wan"] = (wan_model.WanFeedForward(first, torch.nn.GELU("tanh"), second), "2")
    try:
        from comfy.ldm.minimax.model import MLP
    except ImportError:
        return made
    return made | {"minimax_h3": (MLP(256, 512, **given), "fc2")}


@pytest.mark.parametrize("family", ["ltx", "wan", "minimax_h3"])
def test_every_fused_feed_forward_of_this_comfyui(family, pack):
    import comfy.ops
    from comfy.quant_ops import QuantizedTensor

    beside = importlib.import_module(f"{pack.__name__}.lyco_core.beside")
    adapters = importlib.import_module(f"{pack.__name__}.lyco_core.adapters")
    seat = importlib.import_module(f"{pack.__name__}.nodes.host.model.beside.seat")
    module, path = feed_forwards(comfy.ops.mixed_precision_ops({}, torch.float32)).get(family, (None, ""))
    if module is None:
        pytest.skip(f"this ComfyUI has no {family}, or calls its Linears alone")
    state: dict[str, torch.Tensor] = {}
    numbers: dict[str, torch.Tensor] = {}
    for number, (name, linear) in enumerate((n, m) for n, m in module.named_modules() if hasattr(m, "in_features")):
        weight = quantized_models.normal(number, linear.out_features, linear.in_features) / linear.in_features**0.5
        stored = QuantizedTensor.from_float(weight, "TensorWiseINT8Layout", per_channel=True)
        state |= stored.state_dict(f"{name}.weight")
        state[f"{name}.comfy_quant"] = torch.tensor(list(b'{"format": "int8_tensorwise"}'), dtype=torch.uint8)
        numbers[f"{name}.weight"] = stored.dequantize()
        if linear.bias is not None:
            state[f"{name}.bias"] = numbers[f"{name}.bias"] = quantized_models.normal(9, linear.out_features)
    module.load_state_dict(state)
    plain, _ = feed_forwards(comfy.ops.manual_cast)[family]
    plain.load_state_dict(numbers)
    second = module.get_submodule(path)
    lora = adapters.LoRA(quantized_models.normal(3, 256, 4) / 9, quantized_models.normal(4, 4, 512) / 9)
    x = quantized_models.normal(5, 2, 7, 256)
    with torch.no_grad():
        before, expected = module(x), plain(x)
        noise = relative(before, expected)
        changed = plain.get_submodule(path)
        changed.weight += lora.delta_weight()
        change = plain(x) - expected
        settle = lambda parts: beside.settled(parts, lambda *_: None, (256, 512), torch.device("cpu"))  # noqa: E731
        taken = seat.Seat(path, second, {0: (beside.Part(lora, 1.0),)}, settle, None)
        taken.tune(((0, 1.0),))
        found = module(x) - before
        taken.leave()
        assert taken.acted
        assert torch.equal(module(x), before)
    assert relative(found, change) < 2 * noise * float(expected.norm() / change.norm())
