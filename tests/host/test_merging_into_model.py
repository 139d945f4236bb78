"""*Merge into Model* on ComfyUI's own models, in process: the weights, and the model that it leaves alone."""

import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.hosted import expected_weights, tiny_targets
from lyco_testing.tables import musubi_file, random
from lyco_testing.tiny_wan import deltas, scaled_wan, wan_adapter
from safetensors.torch import load_file, save_file

FUSED = "framepack"


def weights(patcher) -> dict[str, torch.Tensor]:
    return patcher.model.state_dict()


def ulp(values: torch.Tensor) -> torch.Tensor:
    """One unit in the last place of bfloat16 numbers of this size."""
    exponent = torch.frexp(values.double().abs().clamp(min=1e-30)).exponent
    return torch.ldexp(torch.ones_like(values, dtype=torch.float64), exponent - 8)


@pytest.mark.every_host
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_the_sums_and_the_input_stays(architecture, dtype, loras, host):
    torch.manual_seed(1)
    tensors = musubi_file(tiny_targets(architecture), "lokr", random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model(architecture, dtype)
    before = {key: tensor.clone() for key, tensor in weights(model).items()}
    merged = host.merge_onto(model, "a.safetensors", 0.7)
    expected = expected_weights(architecture, model, tensors, 0.7)
    assert not merged.model.patches
    assert f"{len(expected)} weights merged" in merged.report
    found = weights(merged.model)
    assert found.keys() == before.keys()
    for key, tensor in found.items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(weights(model)[key], before[key])
        if key not in expected:
            assert tensor.data_ptr() == weights(model)[key].data_ptr()
        elif dtype == torch.float32:
            change = expected[key] - before[key].double()
            assert float((tensor.double() - expected[key]).norm() / change.norm()) < 2e-6
        else:
            off = (tensor.double() - expected[key]) / ulp(expected[key])
            large = torch.maximum(before[key].double().abs(), expected[key].abs())
            lost = 1e-6 * large.max() / ulp(expected[key])  # by float32, where sums cancel
            assert bool((off.abs() <= 0.5 + lost).all())
            assert abs(float(off.mean())) < 5 * 0.29 / off.numel() ** 0.5


def test_stock_saves_it_in_the_models_own_dtype(tmp_path, loras, host):
    import comfy.sd

    save_file(musubi_file(tiny_targets("wan"), "lokr", random), loras / "a.safetensors")
    model = tiny_model("wan", torch.bfloat16)
    merged = host.merge_onto(model, "a.safetensors", 1.0).model
    comfy.sd.save_checkpoint(str(tmp_path / "saved"), merged)
    saved = load_file(tmp_path / "saved")
    for key, tensor in weights(merged).items():
        if key.startswith("diffusion_model."):
            assert torch.equal(saved[f"model.{key}"], tensor)


def test_moving_one_model_does_not_move_the_other(loras, host):
    """They share memory, not Parameters: ComfyUI moves a model by changing its Parameters in place."""
    save_file(musubi_file(tiny_targets("wan"), "lokr", random), loras / "a.safetensors")
    model = tiny_model("wan")
    merged = host.merge_onto(model, "a.safetensors", 1.0).model
    merged.model.to(torch.float64)
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


def test_merges_chain_and_undo(loras, host):
    torch.manual_seed(2)
    for kind in ("lokr", "loha"):
        save_file(musubi_file(tiny_targets(FUSED), kind, random), loras / f"{kind}.safetensors")
    model = tiny_model(FUSED)
    once = host.merge_onto(model, "lokr.safetensors", 0.5).model
    both = host.merge_onto(once, "loha.safetensors", 0.5).model
    back = host.merge_onto(host.merge_onto(both, "lokr.safetensors", -0.5).model, "loha.safetensors", -0.5).model
    for key, tensor in weights(back).items():
        assert torch.allclose(tensor, weights(model)[key], atol=1e-5)
    assert not torch.allclose(
        weights(both)["diffusion_model.double_blocks.0.img_attn.qkv.weight"],
        weights(once)["diffusion_model.double_blocks.0.img_attn.qkv.weight"],
    )


def test_a_model_that_is_loaded_with_patches(loras, host):
    """ComfyUI has patched the weights in place; what is merged is the weight beneath, and the patches stay patches."""
    import comfy.model_management

    torch.manual_seed(3)
    tensors = musubi_file(tiny_targets(FUSED), "lokr", random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model(FUSED)
    before = {key: tensor.clone() for key, tensor in weights(model).items()}
    patched = host.load_onto(model, None, "a.safetensors", 1.0, partial=False).model
    comfy.model_management.load_models_gpu([patched])
    expected = expected_weights(FUSED, model, tensors, 1.0)  # `model` shows the patched weights now
    merged = host.merge_onto(patched, "a.safetensors", 1.0).model
    assert merged.patches.keys() == patched.patches.keys()
    for key, tensor in weights(model).items():
        assert torch.equal(tensor, before[key])
    comfy.model_management.load_models_gpu([merged])
    for key, weight in expected.items():
        assert torch.allclose(weights(merged)[key].double(), weight, atol=1e-5)
    comfy.model_management.unload_all_models()


def test_a_selection(loras, host):
    torch.manual_seed(4)
    save_file(musubi_file(tiny_targets("wan"), "loha", random), loras / "a.safetensors")
    model = tiny_model("wan")
    whole = weights(host.merge_onto(model, "a.safetensors", 1.0).model)
    chosen = host.selection("", ".*ffn.*\n", r"blocks\.1\..*=0.5")
    part = weights(host.merge_onto(model, "a.safetensors", 1.0, selection=chosen).model)
    loaded = host.load_onto(model, None, "a.safetensors", 1.0, partial=False, selection=chosen).model
    for key, before in weights(model).items():
        factor = 0.0 if "ffn" in key else 0.5 if "blocks.1." in key else 1.0
        assert torch.allclose(part[key] - before, factor * (whole[key] - before), atol=2e-6)
        assert (key in loaded.patches) == (not torch.equal(part[key], before))
    with pytest.raises(Exception, match=r"a\.safetensors: the pattern 'ffn' matches no module"):
        host.load_onto(model, None, "a.safetensors", 1.0, partial=False, selection=host.selection("", "ffn", ""))


def test_what_is_excluded_need_not_fit(loras, host):
    torch.manual_seed(5)
    tensors = musubi_file(tiny_targets("wan"), "lora", random)
    save_file({key.replace("blocks_1", "blocks_9"): t for key, t in tensors.items()}, loras / "a.safetensors")
    model = tiny_model("wan")
    with pytest.raises(Exception, match="are not in the model"):
        host.merge_onto(model, "a.safetensors", 1.0)
    host.merge_onto(model, "a.safetensors", 1.0, selection=host.selection("", r"blocks\.9\..*", ""))


def test_scaled_float8_gets_a_fresh_scale(tmp_path, loras, host):
    import comfy.ops
    import comfy.sd

    if not hasattr(comfy.ops, "mixed_precision_ops"):
        pytest.skip("this ComfyUI has no quantized tensors")
    numbers = scaled_wan(tmp_path / "wan.safetensors", "blocks.0.self_attn.q")
    adapter = wan_adapter()
    save_file(adapter, loras / "a.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "wan.safetensors"))
    merged = host.merge_onto(model, "a.safetensors", 20.0).model
    key = "blocks.0.self_attn.q.weight"
    found = merged.model.diffusion_model.blocks[0].self_attn.q.weight
    expected = numbers[key].double() + 20 * deltas(adapter)[key]
    scale = float(expected.abs().max()) / 448
    step = 2.0 ** (torch.frexp((expected / scale).abs().clamp(min=2**-6)).exponent - 4) * scale
    assert type(found).__name__ == "QuantizedTensor"
    assert float(((found.dequantize().double() - expected) / step).abs().max()) < 0.51
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), merged)
    saved = load_file(tmp_path / "out.safetensors")
    stored = saved[f"model.diffusion_model.{key}"]
    assert stored.dtype == torch.float8_e4m3fn
    assert torch.equal(stored.float() * saved[f"model.diffusion_model.{key}_scale"], found.dequantize().float())


def test_a_format_that_holds_no_numbers(loras, host):
    save_file(musubi_file(tiny_targets("wan"), "lora", random), loras / "a.safetensors")
    model = tiny_model("wan")
    layer = model.model.diffusion_model.blocks[0].self_attn.q
    layer.weight = torch.nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(Exception, match=r"self_attn\.q\.weight: is stored as Parameter of torch\.uint8, which nothing"):
        host.merge_onto(model, "a.safetensors", 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_sum_beyond_all_numbers_is_refused(dtype, loras, host):
    tensors = musubi_file(tiny_targets("wan"), "lora", random)
    save_file({k: t * 1e19 if "lora" in k.split(".", 1)[1] else t for k, t in tensors.items()}, loras / "a.safetensors")
    model = tiny_model("wan", dtype)
    before = {key: tensor.clone() for key, tensor in weights(model).items()}
    with pytest.raises(
        Exception, match=r"\.weight: the result is NaN or infinite; lower the strength|the result reaches"
    ):
        host.merge_onto(model, "a.safetensors", 100.0)
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights(model).items())


def test_nan_of_the_base_stays_where_it_is(loras, host):
    save_file(musubi_file(tiny_targets("wan"), "lora", random), loras / "a.safetensors")
    model = tiny_model("wan")
    key = "diffusion_model.blocks.0.self_attn.q.weight"
    weights(model)[key][3, 5] = float("nan")
    found = weights(host.merge_onto(model, "a.safetensors", 1.0).model)[key]
    assert (~torch.isfinite(found)).nonzero().tolist() == [[3, 5]]
