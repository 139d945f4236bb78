"""Rows that change places, or stand fused, in another layout: the change is the trainer's, whatever the algorithm."""

from collections.abc import Callable

import pytest
import torch
from lyco_testing.zoo import normal
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.conversion import ConvertOptions, convert_set
from lyco_core.delta_weights import delta_weights
from lyco_core.errors import PlacementError
from lyco_core.formats import emit, parse
from lyco_core.placement import place

WIDTH = 384
"""An eighth of FLUX.1's."""


def lora(path: str, out: int, columns: int = WIDTH) -> dict[str, Tensor]:
    return {f"{path}.lora_B.weight": normal(out, 2), f"{path}.lora_A.weight": normal(2, columns)}


def dora_in(path: str, out: int) -> dict[str, Tensor]:
    return lora(path, out) | {f"{path}.dora_scale": normal(1, WIDTH).abs() + 9}


def dora_out(path: str, out: int) -> dict[str, Tensor]:
    return lora(path, out) | {f"{path}.dora_scale": normal(out, 1).abs() + 9}


def lokr(path: str, out: int) -> dict[str, Tensor]:
    return {f"{path}.lokr_w1": normal(4, 4), f"{path}.lokr_w2": normal(out // 4, WIDTH // 4)}


def ia3(path: str, out: int) -> dict[str, Tensor]:
    return {f"{path}.weight": normal(out), f"{path}.on_input": torch.tensor(False)}


def oft(blocks: int) -> Callable[[str, int], dict[str, Tensor]]:
    return lambda path, out: {f"{path}.oft_blocks": 0.1 * normal(blocks, out // blocks, out // blocks)}


def changed(file: dict[str, Tensor], layout: str, path: str, weight: Tensor) -> Tensor:
    """What a file makes of a weight of a FLUX.1 with a layout's names."""
    placement = place(identify(parse(file, {}), architecture="flux1"), layout=layout, prefix="")
    weights = {f"{path}.weight": weight.clone()}
    placement.require_complete().apply_(weights)
    return weights[f"{path}.weight"]


@pytest.mark.parametrize(
    "write",
    [lora, dora_in, dora_out, lokr, ia3, oft(48), oft(3)],
    ids=["lora", "dora in", "dora out", "lokr", "ia3", "oft", "oft odd"],
)
def test_diffusers_scale_above_its_shift_is_comfyuis_shift_above_its_scale(write):
    file, weight = write("transformer.norm_out.linear", 2 * WIDTH), normal(2 * WIDTH, WIDTH)
    as_trained = changed(file, "diffusers", "norm_out.linear", weight)
    found = changed(file, "comfyui", "final_layer.adaLN_modulation.1", weight.roll(WIDTH, 0))
    assert torch.equal(found, as_trained.roll(WIDTH, 0)) or float(
        (found - as_trained.roll(WIDTH, 0)).norm()
    ) < 1e-5 * float((as_trained - weight).norm())
    assert not torch.allclose(found, as_trained)


def test_a_bias_changes_places_too():
    file = {"transformer.norm_out.linear.diff_b": normal(2 * WIDTH)} | lora("transformer.proj_out", 64)
    placement = place(identify(parse(file, {}), architecture="flux1"), prefix="")
    deltas = dict(delta_weights(placement.require_complete()))
    assert torch.equal(deltas["final_layer.adaLN_modulation.1.bias"], normal(2 * WIDTH).roll(WIDTH))


@pytest.mark.parametrize("write", [lora, dora_in, dora_out, lokr])
def test_a_converted_file_has_the_rows_in_the_other_order(write):
    file, weight = write("transformer.norm_out.linear", 2 * WIDTH), normal(2 * WIDTH, WIDTH)
    found = identify(parse(file, {}), architecture="flux1", layout="comfyui")
    there = emit(convert_set(found, ConvertOptions("comfyui")).adapter_set)[0]
    assert all(key.startswith("diffusion_model.final_layer.adaLN_modulation.1.") for key in there)
    expected = changed(file, "comfyui", "final_layer.adaLN_modulation.1", weight)
    after = changed(there, "comfyui", "final_layer.adaLN_modulation.1", weight)
    assert float((after - expected).norm()) < 1e-5 * float((expected - weight).norm())


@pytest.mark.parametrize("to", ["comfyui", "musubi"])
def test_what_mixes_the_halves_is_refused(to):
    found = identify(
        parse(oft(3)("transformer.norm_out.linear", 2 * WIDTH), {}), architecture="flux1", layout="comfyui"
    )
    with pytest.raises(PlacementError, match=r"change places in final_layer.adaLN_modulation.1.*OFT mixes|Musubi"):
        convert_set(found, ConvertOptions(to))


FUSED = {
    "flux1": ("transformer_blocks.0.attn.to_qkv", (9216, 3072), ["double_blocks.0.img_attn.qkv 0:9216"]),
    "flux2": ("transformer_blocks.0.attn.to_added_qkv", (9216, 3072), ["double_blocks.0.txt_attn.qkv 0:9216"]),
    "krea2": (
        "transformer_blocks.0.attn.to_qkv",
        (9216, 6144),
        ["blocks.0.attn.wq 0:6144", "blocks.0.attn.wk 6144:7680", "blocks.0.attn.wv 7680:9216"],
    ),
    "qwen_image": (
        "transformer_blocks.0.attn.to_added_qkv",
        (9216, 3072),
        [f"transformer_blocks.0.attn.add_{x}_proj {3072 * n}:{3072 * (n + 1)}" for n, x in enumerate("qkv")],
    ),
    "sd3": ("transformer_blocks.0.attn.to_qkv", (7296, 2432), ["joint_blocks.0.x_block.attn.qkv 0:7296"]),
    "sdxl": (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_kv",
        (1280, 2048),
        [f"input_blocks.4.1.transformer_blocks.0.attn2.to_{x} {640 * n}:{640 * (n + 1)}" for n, x in enumerate("kv")],
    ),
    "wan": (
        "blocks.0.attn2.to_kv",
        (10240, 5120),
        ["blocks.0.cross_attn.k 0:5120", "blocks.0.cross_attn.v 5120:10240"],
    ),
    "z_image": ("layers.0.attention.to_qkv", (11520, 3840), ["layers.0.attention.qkv 0:11520"]),
}
"""Family -> diffusers' fused module, its (out, in), and ComfyUI's modules with the rows that each has of it."""


@pytest.mark.parametrize("family", FUSED)
def test_fused_attention_is_on_the_modules_that_it_fuses(family: str):
    path, shape, expected = FUSED[family]
    prefix = ARCHITECTURES[family].diffusers_prefix
    placement = place(identify(parse(lora(prefix + path, *shape), {}), architecture=family), prefix="")
    placed = [
        f"{piece.key.removesuffix('.weight')} {start}:{stop}"
        for piece in placement.require_complete().placed
        for start, stop in [piece.source_rows or (0, shape[0])]
    ]
    assert placed == expected


def test_what_is_zero_beside_the_fused_counts_as_nothing():
    name = "lycoris_transformer_blocks_0_attn_to_"
    sizes = {"qkv": 9216, "q": 6144, "k": 1536, "v": 1536}
    file = {
        key: tensor
        for part, out in sizes.items()
        for key, tensor in {
            f"{name}{part}.lokr_w1": normal(4, 4) if part == "qkv" else torch.zeros(4, 4),
            f"{name}{part}.lokr_w2": normal(out // 4, 1536),
            f"{name}{part}.dora_scale": normal(out, 1).abs() + 9,
        }.items()
    }
    found = identify(parse(file, {}), architecture="krea2", layout="comfyui")
    placement = place(found, prefix="").require_complete()
    assert {piece.module_path for piece in placement.placed} == {"transformer_blocks.0.attn.to_qkv"}
    assert len(placement.adapter_set.left_out) == 1
