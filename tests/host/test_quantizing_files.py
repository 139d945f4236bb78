"""Files that a merge quantizes: loaded by ComfyUI's loader, rounded as by its layouts, saved again by its modules."""

import pytest
import torch
from lyco_testing import every_family, tiny_families
from lyco_testing.every_family import sampled
from lyco_testing.quantized_files import adapter_for
from lyco_testing.quantized_models import THREE, base_file, load, predict, reference, why_not
from lyco_testing.relative import relative
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.merging import linears as rules
from lyco_core.merging.linears import choose
from lyco_core.model import Model
from lyco_core.quantized import NEW_FORMS, Quantization

AS = {
    "int8_convrot": ("int8_convrot", {"per_channel": True, "convrot": True, "convrot_groupsize": 256}),
    "fp8_scaled": ("fp8_scaled_full_mm", {"scale": "recalculate"}),
    "mxfp8": ("mxfp8", {}),
    "nvfp4": ("nvfp4", {"scale": "recalculate"}),
    "w4a8": ("asym_w4a8", {}),
}
"""Form -> its name in `quantized_models`, and what ComfyUI's layout is told of it."""
MOST = {"int8_convrot": 0.05, "fp8_scaled": 0.08, "mxfp8": 0.08, "nvfp4": 0.3, "w4a8": 0.2}
"""Most that rounding all of them moves a prediction by: measured, and a half."""
EDGES = ("cosmos_predict2", "ltx_2")
"""Families whose first block stays, which is all that their tiny models have."""
SMALL = {name: tiny for name, tiny in tiny_families.models().items() if "fp8_scaled" not in tiny.unable}


@pytest.fixture(params=NEW_FORMS)
def form(request: pytest.FixtureRequest, pack) -> str:
    if reason := why_not(AS[request.param][0]):
        pytest.skip(reason)
    return request.param


def codes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("family", THREE)
def test_as_comfyui_would_have_made_it(family, form, tmp_path, pack):
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    base, weights = base_file(tmp_path, family, "float32")
    tensors, changes = adapter_for(family, 0.2)
    save_file(tensors, tmp_path / "a.safetensors")
    source, output = [Source(tmp_path / "a.safetensors")], tmp_path / "out.safetensors"
    merge_checkpoint(base, source, tmp_path / "sum.safetensors", MergeOptions(architecture=family))
    made = merge_checkpoint(base, source, output, MergeOptions(architecture=family, quantize=form))
    sums, stored = load_file(tmp_path / "sum.safetensors"), load_file(output)
    paths = [key.removesuffix(".comfy_quant") for key in stored if key.endswith(".comfy_quant")]
    assert paths
    layout = QUANT_ALGOS[NEW_FORMS[form].said["format"]]["comfy_tensor_layout"]
    model = load(family, output)
    saved = model.model.diffusion_model.state_dict()
    for path in paths:
        exact = sums[f"{path}.weight"]
        for key, tensor in (
            QuantizedTensor.from_float(exact, layout, **AS[form][1]).state_dict(f"{path}.weight").items()
        ):
            assert (stored[key].dtype, stored[key].shape) == (tensor.dtype, tensor.shape)
            if form != "int8_convrot":
                assert torch.equal(codes(stored[key]), codes(tensor)), key
            elif key.endswith("scale"):
                torch.testing.assert_close(stored[key], tensor, rtol=1e-6, atol=0)
            else:  # its rotation is another order of the same products
                assert int((stored[key].int() - tensor.int()).abs().max()) <= 1
                assert float((stored[key] != tensor).float().mean()) < 1e-3
        for key in [key for key in stored if key.rpartition(".")[0] == path]:
            assert torch.equal(codes(saved[key]), codes(stored[key])) or key.endswith("bias"), key
    for key, tensor in sums.items():
        if key.removesuffix(".weight") not in paths:
            assert torch.equal(codes(stored[key]), codes(tensor)), key
    exact = predict(family, reference(family, weights, changes))
    assert relative(predict(family, model), exact) < MOST[form]
    assert "of the change, " in made.survival[0]


@pytest.mark.parametrize("name", SMALL)
def test_every_family_samples(name, pack, monkeypatch):
    """Whatever the rule chooses is a Linear to ComfyUI, which computes it."""
    tiny = SMALL[name]
    for family in EDGES:
        monkeypatch.delitem(rules._RULES, family)
    weights, linears = every_family.float_weights(tiny)
    model = Model.of(weights)
    if model.architecture is None or model.architecture.id != tiny.family:
        model = Model(model.shapes, model.prefix, tiny.architecture, "comfyui")
    chosen = choose("fp8_scaled", model, Quantization({}, {}, {}, {}, ()))
    paths = {key.removesuffix(".weight") for key in chosen.forms}
    assert paths <= linears.keys()
    stored = dict(weights)
    for key, form in chosen.forms.items():
        scale = form.scale_of(weights[key].abs().max())
        parts = form.encode(weights[key].clone(), scale, None) | scale
        marker = torch.frombuffer(bytearray(NEW_FORMS["fp8_scaled"].marker), dtype=torch.uint8)
        stored |= {key.removesuffix("weight") + role: part.clone() for role, part in parts.items()}
        stored[key.removesuffix("weight") + "comfy_quant"] = marker
    plain = sampled(tiny, every_family.load(tiny, weights))
    found = sampled(tiny, every_family.load(tiny, stored))
    assert 0 < relative(found, plain) < 0.15
