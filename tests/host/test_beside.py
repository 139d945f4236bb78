"""Adapters beside quantized weights: the change of the patched float model, whichever format the base is stored in."""

import importlib

import pytest
import torch
from lyco_testing import foreign_weights, quantized_models
from lyco_testing.half_kernels import half_kernels
from lyco_testing.quantized_models import FAMILIES, FORMATS, QUANTIZED, THREE, predict
from lyco_testing.relative import relative
from lyco_testing.zoo import normal
from safetensors.torch import save_file

AUTO, PATCH, BESIDE = "auto", "patch the weights", "apply while sampling"
Q, FFN = "diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.ffn.2"


@pytest.fixture
def seats(pack):
    """The seats of a MODEL that is loaded."""
    found = importlib.import_module(f"{pack.__name__}.nodes.host.model.beside.seat").Seats
    return lambda model: () if (taken := found.of(model.model)) is None else taken.seats


def readable(name: str) -> str:
    if reason := quantized_models.why_not(name):
        pytest.skip(reason)
    return name


def loaded(host, model, name: str, mode: str = AUTO, strength: float = 1.0):
    return host.load_onto(model, None, name, strength, partial=False, mode=mode)


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("family", THREE)
def test_auto_is_as_exact_as_the_base_computes(family, name, tmp_path, loras, host, seats):
    tensors, changes = quantized_models.adapter(family, "lokr")
    save_file(tensors, loras / "a.safetensors")
    file, numbers = quantized_models.base_file(tmp_path, family, readable(name))
    model = quantized_models.load(family, file)
    plain = predict(family, quantized_models.reference(family, numbers))
    change = predict(family, quantized_models.reference(family, numbers, changes)) - plain
    base = predict(family, model)
    one = loaded(host, model, "a.safetensors")
    found = predict(family, one.model) - base
    assert seats(one.model)
    assert not [seat.path for seat in seats(one.model) if not seat.acted]
    # The change is what two runs differ in, each with the noise of the base's own arithmetic.
    noise = 2**0.5 * relative(base, plain) * max(float(plain.norm()), float((plain + change).norm()))
    assert relative(found, change) < 1.5 * noise / float(change.norm()) + 1e-4
    assert torch.equal(predict(family, model), base)
    assert f"{len(seats(one.model)) or len(one.model.get_injections('lyco')[0].inject.__self__.parts)} modules" in (
        one.report
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_no_adapter_is_idle_in_any_format(family, tmp_path, loras, host, seats):
    tensors, _ = quantized_models.adapter(family, "lora")
    save_file(tensors, loras / "a.safetensors")
    for name in FORMATS:
        if quantized_models.why_not(name) is None:
            file, _ = quantized_models.base_file(tmp_path, family, name)
            one = loaded(host, quantized_models.load(family, file), "a.safetensors", BESIDE)
            predict(family, one.model)
            placed = seats(one.model)
            assert len(placed) == len(quantized_models.linears(family))
            assert not [seat.path for seat in placed if not seat.acted], name


def on_base(kind: str, path: str, out: int, width: int) -> dict[str, torch.Tensor]:
    """One module's tensors of an algorithm that is computed from the weight."""
    lora = {"lora_up.weight": normal(out, 4) / 20, "lora_down.weight": normal(4, width) / 4}
    made = {
        "dora-out": lora | {"dora_scale": 1 + normal(out, 1) / 10},
        "dora-in": lora | {"dora_scale": 1 + normal(1, width) / 10},
        "oft": {"oft_blocks": normal(out // 16, 16, 16) / 30},
        "boft": {"oft_blocks": normal(2, out // 16, 16, 16) / 40},
        "oftv2": {"oft_R.weight": normal(width // 8, 28) / 30},
        "bora": lora | {"bora_m_row": 1 + normal(out, 1) / 10, "bora_m_col": 1 + normal(1, width) / 10},
        "ia3-out": {"weight": normal(out, 1) / 10, "on_input": torch.tensor(False)},
        "ia3-in": {"weight": normal(1, width) / 10, "on_input": torch.tensor(True)},
        "glora": {
            "a1.weight": normal(width, 4) / 40,
            "a2.weight": normal(4, width) / 4,
            "b1.weight": normal(out, 4) / 40,
            "b2.weight": normal(4, width) / 4,
        },
    }
    return {f"{path}.{name}": tensor.contiguous() for name, tensor in made[kind].items()}


KINDS = ("dora-out", "dora-in", "oft", "oftv2", "bora", "boft", "ia3-out", "ia3-in", "glora")


@pytest.mark.parametrize("name", ["float32", "fp8_raw", "nvfp4_pre_quant", "int8_convrot", "mxfp8"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm_acts_beside(kind, name, tmp_path, loras, host, seats):
    torch.manual_seed(1)
    first, second = {}, {}
    for path in (Q, FFN):
        shape = quantized_models.linears("wan")[path.removeprefix("diffusion_model.")]
        first |= on_base(kind, path, *shape)
        second |= on_base("dora-out", path, *shape)
    save_file(first, loras / "first.safetensors")
    save_file(second, loras / "second.safetensors")
    file, numbers = quantized_models.base_file(tmp_path, "wan", readable(name))
    model, plain = quantized_models.load("wan", file), quantized_models.reference("wan", numbers)
    made = {}
    for mode, base in ((BESIDE, model), (PATCH, plain)):
        one = loaded(host, base, "first.safetensors", mode, 0.8)
        two = loaded(host, one.model, "second.safetensors", mode, -0.5)
        before = predict("wan", base)
        made[mode] = [predict("wan", each.model) - before for each in (one, two)]
    noise = relative(predict("wan", model), predict("wan", plain)) * float(before.norm())
    for found, expected in zip(made[BESIDE], made[PATCH], strict=True):
        assert relative(found, expected) < 1.5 * noise / float(expected.norm()) + 1e-4


def test_fused_rows_strengths_and_order_are_those_of_patches(tmp_path, loras, host):
    """Z-Image's q, k and v are rows of one weight: each with a DoRA of its own, by inputs too, then a LoKr on all."""
    torch.manual_seed(2)
    width, tensors = quantized_models.WIDTH, {}
    for part, kind in zip("qkv", ("dora-in", "dora-out", "glora"), strict=True):
        tensors |= on_base(kind, f"diffusion_model.layers.0.attention.to_{part}", width, width)
    save_file(tensors, loras / "parts.safetensors")
    whole, _ = quantized_models.adapter("z_image", "lokr")
    save_file({key: t for key, t in whole.items() if "layers.0." in key}, loras / "whole.safetensors")
    file, numbers = quantized_models.base_file(tmp_path, "z_image", "fp8_scaled")
    made = {}
    for mode, base in (
        (BESIDE, quantized_models.load("z_image", file)),
        (PATCH, quantized_models.reference("z_image", numbers)),
    ):
        model = loaded(host, base, "parts.safetensors", mode, 0.7).model
        model = loaded(host, model, "whole.safetensors", mode, -0.4).model
        made[mode] = predict("z_image", loaded(host, model, "parts.safetensors", mode, 0.3).model) - predict(
            "z_image", base
        )
    assert relative(made[BESIDE], made[PATCH]) < 1e-4


def test_one_entry_that_cannot_act_beside_leaves_the_others_there(tmp_path, loras, host, seats):
    tensors, changes = quantized_models.adapter("wan")
    shape = (1, 6, quantized_models.WIDTH)
    tensors["diffusion_model.blocks.0.modulation.diff"] = torch.zeros(shape)
    tensors["diffusion_model.patch_embedding.diff"] = torch.zeros(quantized_models.WIDTH, 16, 1, 2, 2)
    save_file(tensors, loras / "a.safetensors")
    file, numbers = quantized_models.base_file(tmp_path, "wan", readable("nvfp4"))
    model = quantized_models.load("wan", file)
    one = loaded(host, model, "a.safetensors")
    assert "20 modules add it while sampling" in one.report
    assert "2 weights are patched" in one.report
    change = predict("wan", quantized_models.reference("wan", numbers, changes)) - predict(
        "wan", quantized_models.reference("wan", numbers)
    )
    assert relative(predict("wan", one.model) - predict("wan", model), change) < 1e-4


@pytest.mark.parametrize("name", ["nvfp4_pre_quant", "nvfp4"])
def test_patched_weights_are_those_of_the_module(name, tmp_path, loras, host):
    """NVFP4 with `pre_quant_scale`: what is added to the weight is what the module gives for its own input."""
    tensors, changes = quantized_models.adapter("wan", "lora")
    save_file({key: 30 * t if "up" in key else t for key, t in tensors.items()}, loras / "a.safetensors")
    changes = {path: 30 * change for path, change in changes.items()}
    file, numbers = quantized_models.base_file(tmp_path, "wan", readable(name))
    model = quantized_models.load("wan", file)
    one = loaded(host, model, "a.safetensors", PATCH)
    assert "quantized weights are patched and rounded again" in one.report
    plain = predict("wan", quantized_models.reference("wan", numbers))
    change = predict("wan", quantized_models.reference("wan", numbers, changes)) - plain
    assert relative(predict("wan", one.model) - predict("wan", model), change) < 0.3


@pytest.mark.parametrize("name", ["nvfp4", "mxfp8"])
def test_the_cost_of_rounding_where_kernels_take_half_precision_only(name, tmp_path, loras, host):
    tensors, _ = quantized_models.adapter("wan", "lora")
    save_file(tensors, loras / "a.safetensors")
    file, _ = quantized_models.base_file(tmp_path, "wan", readable(name))
    model = quantized_models.load("wan", file)
    expected = loaded(host, model, "a.safetensors", PATCH).report
    with half_kernels(), torch.inference_mode():
        assert "rounded again" in expected
        assert loaded(host, model, "a.safetensors", PATCH).report == expected
        host.merge_onto(model, "a.safetensors", 1.0)


@pytest.mark.parametrize("form", foreign_weights.FORMS)
@pytest.mark.parametrize("kind", ["lokr", "dora-out", "dora-in"])
def test_weights_of_other_packs(form, kind, loras, host, seats):
    torch.manual_seed(3)
    shapes = quantized_models.linears("wan")
    if kind == "lokr":
        tensors, _ = quantized_models.adapter("wan", "lokr")
    else:
        tensors = {}
        for path, shape in shapes.items():
            tensors |= on_base(kind, f"diffusion_model.{path}", *shape)
    save_file(tensors, loras / "a.safetensors")
    model, numbers = foreign_weights.foreign_model("wan", form)
    before = [p.detach().clone() for p in model.model.parameters()]
    plain = quantized_models.reference("wan", numbers)
    expected = predict("wan", loaded(host, plain, "a.safetensors", PATCH).model) - predict("wan", plain)
    base = predict("wan", model)
    noise = relative(base, predict("wan", plain)) * float(base.norm() / expected.norm())
    one = loaded(host, model, "a.safetensors")
    assert bool(seats_of(one)) == (form not in ("gguf_f16", "gguf_bf16"))
    assert relative(predict("wan", one.model) - base, expected) < 1.5 * noise + 2e-3
    assert torch.equal(predict("wan", model), base)
    for old, new in zip(before, model.model.parameters(), strict=True):
        assert torch.equal(old.as_subclass(torch.Tensor), new.detach().as_subclass(torch.Tensor))


def seats_of(one) -> dict:
    held = one.model.get_injections("lyco")
    return held[0].inject.__self__.parts if held else {}


def test_what_cannot_be_read_is_not_written_to(loras, host):
    tensors, _ = quantized_models.adapter("wan", "lokr")
    save_file(tensors, loras / "a.safetensors")
    model, _ = foreign_weights.foreign_model("wan", "int8_fast")
    with pytest.raises(
        Exception, match=r"is stored as int8, whose numbers ComfyUI cannot give.*choose the mode 'auto'"
    ):
        loaded(host, model, "a.safetensors", PATCH)
    assert not model.patches
