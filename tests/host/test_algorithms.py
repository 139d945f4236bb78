"""Every algorithm on a real ComfyUI model: in its weights, merged, and what must not act beside them."""

import dataclasses
import importlib
import sys

import pytest
import torch
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tables import lokr, random
from lyco_testing.zoo_on_base import ON_BASE
from safetensors.torch import save_file

from lyco_core.adapters import Adapter
from lyco_core.formats import parse

Q = "diffusion_model.blocks.0.self_attn.q"
KEY = f"{Q}.weight"


def files() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(8)
    plain = lokr(Q, 64, 64, random)
    return {
        "DoRA, output axis": plain | {f"{Q}.dora_scale": random(64, 1).abs() + 4},
        "DoRA, input axis": plain | {f"{Q}.dora_scale": random(1, 64).abs() + 4},
        "PEFT's DoRA": plain | {f"{Q}.lora_magnitude_vector.weight": random(64).abs() + 4},
        "ai-toolkit's DoRA": plain | {f"{Q}.magnitude": random(64).abs() + 4},
        "GLoRA": {
            f"{Q}.{n}.weight": random(*((64, 3) if n[1] == "1" else (3, 64))) / 9 for n in ("a1", "a2", "b1", "b2")
        },
        "magnitudes for ComfyUI's norm": plain
        | {f"{Q}.dora_scale": random(64, 1).abs() + 4, f"{Q}.initial_norm": torch.ones(64)},
        "IA3": {f"{Q}.weight": random(64), f"{Q}.on_input": torch.tensor(0)},
        "OFT": {f"{Q}.oft_blocks": random(16, 4, 4) / 5},
        "BOFT": {f"{Q}.oft_blocks": random(4, 16, 4, 4) / 5, f"{Q}.rescale": random(64, 1) + 2},
        "OFTv2": {f"{Q}.oft_R.weight": random(16, 6), f"{Q}.oft_R.scaled_oft": torch.tensor(True)},
        "OFTv2 with DoRA, one block for all": {
            f"{Q}.oft_R.weight": random(1, 28) / 9,
            f"{Q}.dora_scale": random(64, 1).abs() + 4,
            f"{Q}.initial_norm": random(64, 1).abs() + 4,
        },
        "BoRA": plain | {f"{Q}.bora_m_row": random(64, 1).abs() + 4, f"{Q}.bora_m_col": random(1, 64).abs() + 4},
        "a difference": {f"{Q}.diff": random(64, 64)},
    }


def of_pack(pack, adapter: Adapter) -> Adapter:
    """The adapter in the classes of the pack's own copy of the library."""
    classes = importlib.import_module(f"{pack.__name__}.lyco_core.adapters")
    fields = {field.name: getattr(adapter, field.name) for field in dataclasses.fields(adapter)}
    fields = {name: of_pack(pack, value) if isinstance(value, Adapter) else value for name, value in fields.items()}
    return getattr(classes, type(adapter).__name__)(**fields)


def expected(tensors: dict[str, torch.Tensor], weight: torch.Tensor, strength: float) -> torch.Tensor:
    return parse(tensors, {}).adapters["blocks.0.self_attn.q"].add_to_(weight.clone(), strength)


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("strength", [1.0, -0.6])
def test_the_patched_weight_is_the_algorithms(name, strength, loras, host):
    tensors = files()[name]
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    loaded = host.load_onto(model, None, "a.safetensors", strength, partial=False)
    before = model.model.state_dict()[KEY].clone()
    assert list(loaded.model.patches) == [KEY]
    assert torch.equal(patched_weight(loaded.model, KEY), expected(tensors, before, strength))
    assert torch.equal(model.model.state_dict()[KEY], before)


@pytest.mark.parametrize("name", files())
def test_merged_is_as_patched(name, loras, host):
    tensors = files()[name]
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    before = model.model.state_dict()[KEY].clone()
    merged = host.merge_onto(model, "a.safetensors", 0.7).model
    assert torch.allclose(merged.model.state_dict()[KEY], expected(tensors, before, 0.7), rtol=1e-6, atol=1e-6)


def test_a_dora_on_rows_of_a_fused_weight_leaves_the_other_rows(loras, host):
    """q, k and v of Z-Image are three modules where they are trained, and one weight in ComfyUI."""
    names = [f"diffusion_model.layers.0.attention.to_{x}" for x in "qkv"]
    torch.manual_seed(2)
    tensors = lokr(names[0], 64, 64, random) | {f"{names[0]}.dora_scale": random(64, 1).abs() + 3}
    tensors |= lokr(names[2], 64, 64, random) | {f"{names[2]}.dora_scale": random(1, 64).abs() + 3}
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("z_image")
    loaded = host.load_onto(model, None, "a.safetensors", 1.0, partial=False)
    key = "diffusion_model.layers.0.attention.qkv.weight"
    from lyco_core.formats import parse

    adapters = parse(tensors, {}).adapters
    before = model.model.state_dict()[key].clone()
    q, k, v = before.split(64)
    q = adapters["layers.0.attention.to_q"].add_to_(q.clone())
    v = adapters["layers.0.attention.to_v"].add_to_(v.clone())
    assert torch.equal(patched_weight(loaded.model, key), torch.cat([q, k, v]))


@pytest.mark.parametrize("name", files())
def test_it_acts_beside_the_weight_too(name, loras, host):
    save_file(files()[name], loras / "a.safetensors")
    model = tiny_model("wan")
    patched = host.load_onto(model, None, "a.safetensors", 0.6, partial=False).model
    beside = host.load_onto(model, None, "a.safetensors", 0.6, partial=False, mode="apply while sampling").model
    assert not beside.patches
    module = model.model.get_submodule(Q)
    x = random(5, 64)
    expected = torch.nn.functional.linear(x, patched_weight(patched, KEY), module.bias)
    beside.inject_model()
    found = module(x)
    beside.eject_model()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(module(x), expected, rtol=1e-3, atol=1e-3)


def test_biases_and_norms_are_patched_where_weights_are_not(loras, host):
    torch.manual_seed(3)
    tensors = lokr(Q, 64, 64, random) | {f"{Q}.diff_b": random(64)}
    tensors["diffusion_model.blocks.0.norm3.w_norm"] = random(64)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    loaded = host.load_onto(model, None, "a.safetensors", 0.5, partial=False, mode="apply while sampling")
    assert set(loaded.model.patches) == {f"{Q}.bias", "diffusion_model.blocks.0.norm3.weight"}
    assert loaded.model.injections
    found = patched_weight(loaded.model, f"{Q}.bias")
    assert torch.allclose(found, model.model.state_dict()[f"{Q}.bias"] + 0.5 * tensors[f"{Q}.diff_b"])


def test_a_scale_instead_of_the_files(loras, host):
    torch.manual_seed(6)
    tensors = {f"{Q}.lokr_w1": random(8, 8), f"{Q}.lokr_w2": random(8, 8), f"{Q}.alpha": torch.tensor(9999999999.0)}
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    before = model.model.state_dict()[KEY].clone()
    loaded = host.load_onto(model, None, "a.safetensors", 1.0, partial=False, scale=0.25)
    change = torch.kron(tensors[f"{Q}.lokr_w1"], tensors[f"{Q}.lokr_w2"])
    assert torch.allclose(patched_weight(loaded.model, KEY) - before, change / 4, atol=1e-5)


NORM_OUT = "lora_transformer_norm_out_linear"  # OneTrainer's, of a weight whose halves ComfyUI swaps
SWAPPED = "diffusion_model.final_layer.adaLN_modulation.1.weight"


@pytest.mark.parametrize("case", [c for c in ON_BASE if c.shape[0] % 2 == 0], ids=lambda c: c.name)
def test_where_comfyui_swaps_the_halves_the_adapter_sees_the_weight_as_it_was_trained(case, host, pack):
    from comfy.utils import swap_scale_shift

    adapter = case.make()
    patch = sys.modules[f"{host.__name__}.model.patch"].LycoPatch.of(of_pack(pack, adapter), "x")
    weight = torch.randn(case.shape, generator=torch.Generator().manual_seed(2))
    trained = swap_scale_shift(weight)
    wanted = trained + 0.7 * (case.changed(adapter, trained.double()) - trained)
    found = patch.calculate_weight(weight.clone(), "k", 0.7, 1.0, None, swap_scale_shift)
    assert torch.allclose(found.double(), swap_scale_shift(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["DoRA, output axis", "DoRA, input axis", "OFT", "IA3", "a difference", "LoKr"])
def test_an_onetrainer_file_for_flux1s_last_modulation(name, loras, host):
    torch.manual_seed(6)
    file = {k.removeprefix(Q): t for k, t in lokr(Q, 128, 64, random).items()}
    file |= {
        "DoRA, output axis": {".dora_scale": random(128, 1).abs() + 4},
        "DoRA, input axis": {".dora_scale": random(1, 64).abs() + 4},
    }.get(name, {})
    other = {
        "OFT": {".oft_blocks": random(32, 4, 4) / 5},
        "IA3": {".weight": random(128), ".on_input": torch.tensor(0)},
        "a difference": {".diff": random(128, 64)},
    }
    file = other.get(name, file)
    beside = lokr("lora_transformer_single_transformer_blocks_0_attn_to_q", 64, 64, random)
    save_file({NORM_OUT + k: t for k, t in file.items()} | beside, loras / "a.safetensors")
    model = tiny_model("flux1")
    loaded = host.load_onto(model, None, "a.safetensors", 0.7, partial=False)
    before = model.model.state_dict()[SWAPPED].clone()
    (adapter,) = parse({f"{Q}{k}": t for k, t in file.items()}, {}).adapters.values()
    trained = torch.cat(before.chunk(2)[::-1])
    wanted = torch.cat(adapter.add_to_(trained.clone(), 0.7).chunk(2)[::-1])
    assert len(loaded.model.patches) == 2
    for found in (
        patched_weight(loaded.model, SWAPPED),
        host.merge_onto(model, "a.safetensors", 0.7).model.model.state_dict()[SWAPPED],
    ):
        assert float((found - wanted).norm() / (wanted - before).norm()) < 1e-6
    assert float((wanted - before).norm()) > 0.1
