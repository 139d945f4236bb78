"""Every family that the pack knows, as ComfyUI's own model, tiny: no adapter beside its weights is idle or wrong."""

import functools
import importlib
import re

import pytest
import torch
from lyco_testing import every_family, quantized_models, tiny_families
from lyco_testing.every_family import sampled
from lyco_testing.relative import relative
from safetensors.torch import save_file

from lyco_core.architectures import ARCHITECTURES

BESIDE = "apply while sampling"
MODELS = tiny_families.models()
EXACT = ("fp8_scaled", "nvfp4_pre_quant", "int8_convrot")
"""One of each way to compute: by a scale, packed behind scaled inputs, by kernels that callers fuse with others."""
ACTING = ("fp8_raw",)
"""Where it is only asked whether all act; test_beside.py asks it of fewer families in every format."""


@pytest.fixture
def seats(pack):
    return importlib.import_module(f"{pack.__name__}.nodes.host.model.beside.seat").Seats


@functools.lru_cache(1)
def made(name: str):
    """(weights, targets, those that every format can store, an adapter's tensors, the changes that it makes)."""
    weights, linears = every_family.float_weights(MODELS[name])
    wide = [path for path, (out, width) in linears.items() if width % quantized_models.WIDTH == 0 and out % 32 == 0]
    return weights, linears, wide, *every_family.adapter(MODELS[name], linears)


@pytest.mark.parametrize("form", [*EXACT, *ACTING])
@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_acts(name, form, loras, host, seats):
    if reason := quantized_models.why_not(form):
        pytest.skip(reason)
    tiny = MODELS[name]
    if form in tiny.unable:
        pytest.skip(f"ComfyUI computes no {name} as {form}")
    weights, linears, wide, tensors, changes = made(name)
    save_file(tensors, loras / "a.safetensors")
    stored, metadata, numbers = quantized_models.stored(weights, wide, form)
    asked = quantized_models.asked_dtype(metadata)
    model = every_family.load(tiny, numbers if asked else stored, metadata, asked)
    base = sampled(tiny, model)
    one = host.load_onto(model, None, "a.safetensors", 1.0, partial=False, mode=BESIDE).model
    found = sampled(tiny, one) - base
    placed = {seat.path.removeprefix("diffusion_model."): seat.acted for seat in seats.of(one.model).seats}
    assert placed == {path: not re.fullmatch(tiny.idle, path) for path in linears}
    if form not in EXACT:
        return
    reference = every_family.load(tiny, numbers)
    plain = sampled(tiny, reference)
    every_family.add(reference, changes)
    after = sampled(tiny, reference)
    change = after - plain
    # The change is what two runs differ in, each with the noise of the base's own arithmetic.
    noise = 2**0.5 * relative(base, plain) * max(float(plain.norm()), float(after.norm()))
    assert relative(found, change) < 1.5 * noise / float(change.norm()) + 1e-4


@pytest.mark.parametrize("form", ["int8_convrot", "fp8_scaled"])
def test_sampling_stops_where_the_conditioning_passes_an_adapter_by(form, loras, host, monkeypatch):
    """LTX-2 sends the text through its connectors before a sampler calls the model."""
    if reason := quantized_models.why_not(form):
        pytest.skip(reason)
    tiny = MODELS["ltx_2"]
    weights, _, wide, tensors, _ = made("ltx_2")
    save_file(tensors, loras / "a.safetensors")
    stored, metadata, _ = quantized_models.stored(weights, wide, form)
    model = every_family.load(tiny, stored, metadata)
    path = "diffusion_model.video_embeddings_connector.transformer_1d_blocks.0.ff"
    part = model.model.get_submodule(path)
    before = sampled(tiny, model)
    one = host.load_onto(model, None, "a.safetensors", 1.0, partial=False, mode=BESIDE).model

    def fused(x):
        first, second = part.net[0](x), part.net[2]
        return torch.nn.functional.linear(first, second.weight.dequantize(), second.bias)

    with monkeypatch.context() as replaced:
        replaced.setattr(part, "forward", fused)
        with pytest.raises(Exception, match=rf"1 adapters were not computed \({path}.net.2\).*'patch the weights'"):
            sampled(tiny, one)
    assert relative(sampled(tiny, one), before) > 0.1
    assert torch.equal(sampled(tiny, model), before)
    assert "extra_conds" not in model.model.__dict__


def test_every_family_and_module_is_walked(pack):
    """All that a table names is in one of the models: a family, or a module, that comes is walked or fails here."""
    walked: dict[str, set[str]] = {family: set() for family in ARCHITECTURES}
    for tiny in MODELS.values():
        for key in every_family.float_weights(tiny)[0]:
            path = key.removesuffix(".weight")
            if tiny.architecture.resolve(path, "comfyui", underscored=False):
                walked[tiny.family].add(template(path))
    for family, architecture in ARCHITECTURES.items():
        if family in tiny_families.LATER:
            continue
        named = {template(name) for name in architecture.templates("comfyui")}
        assert named == walked[family], f"{family}: give lyco_testing/tiny_families.py a model with every module"


def template(path: str) -> str:
    """Without the numbers of blocks, layers and experts."""
    return re.sub(r"\d+|\{n\}", "N", path)
