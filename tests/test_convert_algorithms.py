"""Conversions of what is computed from the weight, and of differences: the changed weight stays what it was."""

import pytest
import torch
from lyco_testing.tables import loha, lokr, lora, random
from lyco_testing.zoo import normal

from lyco_core.adapters import DoRA
from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.conversion import ConvertOptions, convert_set
from lyco_core.errors import PlacementError
from lyco_core.formats import emit, parse

Q = "diffusion_model.blocks.0.self_attn.q"


def files() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(8)
    plain = lokr(Q, 64, 64, random)
    return {
        "DoRA": plain | {f"{Q}.dora_scale": random(64, 1).abs() + 4},
        "DoRA of a LoRA": lora(Q, 64, 64, random) | {f"{Q}.dora_scale": random(64, 1).abs() + 4},
        "GLoRA": {f"{Q}.{n}.weight": random(*((64, 3) if n[1] == "1" else (3, 64))) for n in ("a1", "a2", "b1", "b2")},
        "IA3": {f"{Q}.weight": random(64), f"{Q}.on_input": torch.tensor(1)},
        "OFT": {f"{Q}.oft_blocks": random(16, 4, 4) / 5, f"{Q}.rescale": random(64, 1) + 2},
        "BOFT": {f"{Q}.oft_blocks": random(4, 16, 4, 4) / 5},
        "OFTv2": {f"{Q}.oft_R.weight": random(16, 6), f"{Q}.oft_R.scaled_oft": torch.tensor(True)},
        "OFTv2 with DoRA, one block for all": {
            f"{Q}.oft_R.weight": random(1, 28) / 9,
            f"{Q}.dora_scale": random(64, 1).abs() + 4,
            f"{Q}.initial_norm": random(64, 1).abs() + 4,
        },
        "BoRA": plain | {f"{Q}.bora_m_row": random(64, 1).abs() + 4, f"{Q}.bora_m_col": random(1, 64).abs() + 4},
        "a difference with a bias": {f"{Q}.diff": random(64, 64), f"{Q}.diff_b": random(64)},
    }


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def converted(
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
    *,
    to: str,
    as_lora: bool = False,
    **options,
):
    found = identify(parse(tensors, metadata or {}), layout=to, **options)
    return convert_set(found, ConvertOptions(to, as_lora=as_lora))


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("to", ["diffusers", "comfyui"])
def test_there_and_back(name, to):
    tensors = files()[name]
    there = converted(tensors, to=to, architecture="wan")
    back = converted(*emit(there.adapter_set), to="comfyui", architecture="wan")
    before, after = parse(tensors, {}).adapters, parse(*emit(back.adapter_set)).adapters
    assert before.keys() == after.keys()
    for path, adapter in before.items():
        weight = normal(64, 64) if not path.endswith(".bias") else normal(64)
        expected, found = adapter.add_to_(weight.clone()), after[path].add_to_(weight.clone())
        assert float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("name", files())
def test_musubi_reads_none_of_it(name):
    with pytest.raises(PlacementError, match="Musubi Tuner reads LoRA, LoHa and LoKr only"):
        converted(files()[name], to="musubi", architecture="wan")


def test_musubi_reads_only_lora_of_kandinsky_5():
    """It trains LoRA of it, and neither LoHa nor LoKr; other layouts take what there is."""
    paths = [f"visual_transformer_blocks.0.{x}_attention.to_query" for x in ("self", "cross")]
    tensors = {key: t for path in paths for key, t in lokr(f"transformer.{path}", 1792, 1792, random).items()}
    with pytest.raises(PlacementError, match=r"to_query: is a LoKr, and Musubi Tuner reads LoRA only for Kandinsky 5"):
        converted(tensors, to="musubi")
    made = converted(tensors, to="musubi", as_lora=True)
    assert {key.partition(".")[0] for key in emit(made.adapter_set)[0]} == {
        f"lora_unet_{path.replace('.', '_')}" for path in paths
    }
    assert {key.rpartition(".")[0] for key in emit(converted(tensors, to="comfyui").adapter_set)[0]} == {
        f"diffusion_model.{path}" for path in paths
    }


def test_musubi_reads_only_lora_of_hidream_o1():
    """By the names that its model has in what it wraps; what it generates with takes no LoHa or LoKr for it."""
    path = "language_model.layers.35.self_attn.k_proj"
    tensors = lokr(f"diffusion_model.{path}", 1024, 4096, random)
    with pytest.raises(PlacementError, match=r"k_proj: is a LoKr, and Musubi Tuner reads LoRA only for HiDream-O1"):
        converted(tensors, to="musubi")
    options = ConvertOptions("musubi", goes_on=True)
    (found,) = convert_set(
        identify(parse(tensors, {}), layout="musubi"), options
    ).modules  # for a training here, which reads all
    assert (found.module_path, found.adapter.algorithm) == (f"model.{path}", "lokr")
    made = emit(converted(tensors, to="musubi", as_lora=True).adapter_set)[0]
    name = "lora_unet_model_language_model_layers_35_self_attn_k_proj"
    assert {key.partition(".")[0] for key in made} == {name}
    back = emit(converted(made, to="comfyui").adapter_set)[0]
    assert {key.rpartition(".lora_")[0] for key in back if ".lora_" in key} == {f"diffusion_model.{path}"}


def test_kohyas_names_take_all_of_it():
    """Of families that Musubi does not train, the layout is sd-scripts', which LyCORIS loads."""
    path = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    tensors = lokr(path, 640, 640, random) | {f"{path}.dora_scale": random(640, 1).abs() + 4}
    made = converted(tensors, to="musubi", architecture="sdxl")
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert {key.partition(".")[0] for key in emit(made.adapter_set)[0]} == {name}
    assert torch.equal(emit(made.adapter_set)[0][f"{name}.dora_scale"], tensors[f"{path}.dora_scale"])


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("inner", ["lokr", "lora"])
def test_a_dora_of_a_fused_weight_is_cut_by_its_rows_and_stacked_again(inner, alone):
    """Z-Image's qkv is one weight for ComfyUI and three for diffusers; alphas stand where the file's kind has them."""
    torch.manual_seed(3)
    prefix = "diffusion_model.layers.0.attention.qkv"
    tensors = {"lokr": lokr, "lora": lora}[inner](prefix, 192, 64, random)
    tensors[f"{prefix}.dora_scale"] = random(192, 1).abs() + 3
    beside = {} if alone else lokr("diffusion_model.layers.0.attention.out", 64, 64, random)
    there = converted(tensors | beside, to="diffusers", architecture="z_image")
    cut = {p: a for p, a in parse(*emit(there.adapter_set)).adapters.items() if "to_out" not in p}
    assert {path.rpartition(".")[2] for path in cut} == {"to_q", "to_k", "to_v"}
    weight = normal(192, 64)
    expected = next(iter(parse(tensors, {}).adapters.values())).add_to_(weight.clone())
    found = torch.cat(
        [
            cut[f"layers.0.attention.to_{x}"].add_to_(part.clone())
            for x, part in zip("qkv", weight.split(64), strict=True)
        ]
    )
    assert float((found - expected).norm() / expected.norm()) < 1e-6
    assert all(isinstance(adapter, DoRA) for adapter in cut.values())
    again = identify(parse(*emit(there.adapter_set)), architecture="z_image", layout="musubi")
    assert again.architecture is ARCHITECTURES["z_image"]


FUSED = {  # what diffusers keeps apart of a fused weight, from its first row on
    "flux1": ("double_blocks.0.img_attn.qkv", "transformer_blocks.0.attn.to_{}", "qkv"),
    "flux2": ("double_blocks.0.txt_attn.qkv", "transformer_blocks.0.attn.add_{}_proj", "qkv"),
    "sd3": ("joint_blocks.0.x_block.attn.qkv", "transformer_blocks.0.attn.to_{}", "qkv"),
    "hunyuan_video": ("double_blocks.0.img_attn.qkv", "transformer_blocks.0.attn.to_{}", "qkv"),
}


@pytest.mark.parametrize("family", FUSED)
@pytest.mark.parametrize("order", ["qkv", "kqv", "vkq"])
@pytest.mark.parametrize("make", [lokr, loha, lora], ids=["lokr", "loha", "lora"])
def test_rows_are_joined_as_they_lie_in_the_weight_whatever_their_order_in_the_file(family, order, make):
    torch.manual_seed(5)
    fused, apart, parts = FUSED[family]
    whole = {f"x.{x}": make("x", 192, 192, random) | {"x.dora_scale": random(192, 1).abs() + 3} for x in parts}
    tensors = {
        f"transformer.{apart.format(x)}.{key.removeprefix('x.')}": t
        for x in order
        for key, t in whole[f"x.{x}"].items()
    }
    made = converted(tensors, to="comfyui", architecture=family)
    adapters = parse(*emit(made.adapter_set)).adapters
    assert adapters.keys() == {fused}
    weight = normal(3 * 192, 192)
    expected = torch.cat(
        [
            next(iter(parse(whole[f"x.{x}"], {}).adapters.values())).add_to_(part.clone())
            for x, part in zip(parts, weight.split(192), strict=True)
        ]
    )
    assert relative(adapters[fused].add_to_(weight.clone()), expected) < 1e-6


@pytest.mark.parametrize("order", ["qkv", "kqv"])
def test_a_lokr_that_was_cut_is_that_lokr_again(order):
    torch.manual_seed(5)
    prefix = "diffusion_model.double_blocks.0.img_attn.qkv"
    whole = {f"{prefix}.lokr_w1": random(6, 2), f"{prefix}.lokr_w2": random(32, 32)}
    there = converted(whole, to="diffusers", architecture="hunyuan_video")
    tensors = {k: t for x in order for k, t in emit(there.adapter_set)[0].items() if f".to_{x}." in k}
    assert tensors.keys() == emit(there.adapter_set)[0].keys()
    back = converted(tensors, to="comfyui", architecture="hunyuan_video")
    assert emit(back.adapter_set)[0].keys() == whole.keys()
    assert all(torch.equal(emit(back.adapter_set)[0][key], t) for key, t in whole.items())


def test_a_magnitude_by_inputs_is_not_cut():
    prefix = "diffusion_model.layers.0.attention.qkv"
    tensors = lokr(prefix, 192, 64, random) | {f"{prefix}.dora_scale": random(1, 64)}
    with pytest.raises(PlacementError, match="LoKr with DoRA cannot be cut"):
        converted(tensors, to="diffusers", architecture="z_image")


def test_a_magnitude_by_inputs_is_none_of_diffusers():
    tensors = lora(Q, 64, 64, random) | {f"{Q}.dora_scale": random(1, 64)}
    with pytest.raises(PlacementError, match="diffusers knows the outputs' only"):
        emit(converted(tensors, to="diffusers", architecture="wan").adapter_set)


def test_no_lora_of_what_needs_the_weight():
    found = identify(parse(files()["OFT"], {}), architecture="wan", layout="comfyui")
    with pytest.raises(PlacementError, match="OFT has no exact LoRA; its change depends on the weight"):
        convert_set(found, ConvertOptions("comfyui", as_lora=True))


def test_a_full_lokrs_alpha_of_0_does_not_switch_its_lora_off():
    """No rule scales full matrices, but a LoRA's alpha of 0 means off."""
    tensors = {f"{Q}.lokr_w1": normal(4, 4), f"{Q}.lokr_w2": normal(16, 16), f"{Q}.alpha": torch.tensor(0.0)}
    found = identify(parse(tensors, {}), architecture="wan", layout="comfyui")
    made = parse(*emit(convert_set(found, ConvertOptions("comfyui", as_lora=True)).adapter_set))
    (adapter,) = made.adapters.values()
    assert relative(adapter.delta_weight(), torch.kron(normal(4, 4), normal(16, 16))) < 1e-6


def test_a_unet_is_called_so():
    name = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    found = identify(parse(lora(f"lora_unet_{name}", 320, 320, random), {}), architecture="sd15", layout="diffusers")
    made = convert_set(found, ConvertOptions("diffusers"))
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert set(emit(made.adapter_set)[0]) == {f"{path}.lora_A.weight", f"{path}.lora_B.weight"}
    assert '"unet.r": 2' in emit(made.adapter_set)[1]["lora_adapter_metadata"]
