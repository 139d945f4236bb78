"""Where adapters go, and what is said about those that go nowhere."""

import dataclasses

import pytest
import torch
from lyco_testing.tables import MODELS, dotted_file, lokr, lora, musubi_file, random, targets, weights

from lyco_core.architectures import identify
from lyco_core.errors import PlacementError
from lyco_core.formats import parse
from lyco_core.placement import Placement, place


def placed(tensors: dict[str, torch.Tensor], *args, **options) -> Placement:
    return place(identify(parse(tensors, {})), *args, **options)


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_file_on_the_whole_model(model: str):
    placement = placed(musubi_file(targets(model)), weights(model))
    assert placement.complete
    assert placement.problem() == ""
    assert placement.modules == len(targets(model))


@pytest.mark.parametrize("model", MODELS)
def test_without_a_model_the_same_places(model: str):
    tensors = musubi_file(targets(model))
    assert placed(tensors).placed == placed(tensors, weights(model)).placed


def test_a_module_that_the_model_lacks():
    shapes = weights("wan21_t2v_1_3b")
    del shapes["diffusion_model.blocks.3.ffn.0.weight"]
    placement = placed(musubi_file(targets("wan21_t2v_1_3b")), shapes)
    assert placement.homeless == ("blocks.3.ffn.0",)
    message = r"1 of 300 modules are not in the model \(lora_unet_blocks_3_ffn_0\)"
    with pytest.raises(PlacementError, match=message):
        placement.require_complete()


def test_another_width():
    placement = placed(musubi_file(targets("wan21_t2v_1_3b")), weights("wan21_t2v_14b"))
    assert len(placement.misfits) == 300
    assert not placement.placed
    message = (
        r"300 of 300 modules have another shape \(blocks.0.self_attn.q: the model's weight is "
        r"\[5120, 5120\], the adapter's \[1536, 1536\]\)"
    )
    with pytest.raises(PlacementError, match=message):
        placement.require_complete()


def test_another_architecture():
    placement = placed(musubi_file(targets("wan21_t2v_1_3b")), weights("z_image"))
    assert len(placement.homeless) == 300


def test_a_fused_weight_of_another_height():
    shapes = weights("z_image")
    shapes["diffusion_model.layers.0.attention.qkv.weight"] = (11521, 3840)
    placement = placed(musubi_file(targets("z_image")), shapes)
    assert {m.module_path for m in placement.misfits} == {f"layers.0.attention.to_{x}" for x in "qkv"}


def test_one_part_of_a_fused_weight_has_its_rows():
    (piece,) = placed(musubi_file({"layers.1.attention.to_k": (64, 64)})).placed
    assert piece.key == "diffusion_model.layers.1.attention.qkv.weight"
    assert (piece.shape, piece.rows, piece.source_rows) == ((192, 64), (64, 128), None)


def test_parts_of_unequal_height():
    """FramePack's proj_mlp is the lower four sevenths of HunyuanVideo's linear1."""
    (piece,) = placed(musubi_file({"single_transformer_blocks.0.proj_mlp": (256, 64)})).placed
    assert piece.key == "diffusion_model.single_blocks.0.linear1.weight"
    assert (piece.shape, piece.rows) == ((448, 64), (192, 448))


@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_a_fused_adapter_is_cut_for_a_split_layout(algorithm: str):
    """Exact: by rows where the algebra can, else as the LoRA that it equals (LoKr 4 x 48 rows cut at 64)."""
    torch.manual_seed(0)
    found = identify(parse(dotted_file({"layers.0.attention.qkv": (192, 64)}, algorithm, random), {}))
    placement = place(found, layout="diffusers").require_complete()
    assert [p.key for p in placement.placed] == [f"layers.0.attention.to_{x}.weight" for x in "qkv"]
    (adapter,) = found.adapters.values()
    parts = [p.part(adapter).delta_weight() for p in placement.placed]
    whole = adapter.delta_weight()
    assert float((torch.cat(parts) - whole).norm() / whole.norm()) < 1e-6


def test_linear_adapter_on_a_1x1_convolution():
    tensors = dotted_file({"blocks.0.self_attn.q": (8, 8)})
    placement = placed(tensors, {"diffusion_model.blocks.0.self_attn.q.weight": (8, 8, 1, 1)})
    assert placement.complete


def test_keys_of_no_adapter_count_as_left_out():
    tensors = musubi_file(targets("z_image")) | {"lora_unet_layers_0_attention_to_q.set_weight": torch.ones(1)}
    placement = placed(tensors, weights("z_image"))
    assert not placement.complete
    assert (
        "5 keys belong to no adapter that is known here (lora_unet_layers_0_attention_to_q.lokr_w1"
        in placement.problem()
    )


def test_an_unknown_family_has_no_places():
    placement = placed(lora("lora_unet_down_blocks_0_x", 8, 8), weights("z_image"))
    assert placement.homeless == ("down_blocks_0_x",)


def test_rows_that_cannot_be_cut_are_refused():
    modules = {"layers.0.attention.qkv": (64, 64), "layers.0.attention.out": (64, 64)}
    found = identify(parse(dotted_file(modules), {}), architecture="z_image")
    placement = place(found, layout="diffusers")
    assert placement.modules == 1
    assert placement.misfits[0].module_path == "layers.0.attention.qkv"


def test_placement_is_decided_from_outlines_alone():
    found = identify(parse(lokr("lora_unet_layers_0_attention_to_q", 64, 64), {}))
    assert all(t.is_meta for a in found.adapters.values() for t in a.tensors.values())
    assert dataclasses.is_dataclass(place(found).placed[0])


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_parts_that_disagree_about_the_weight(shape: tuple[int, int]):
    modules = {
        "layers.0.attention.to_q": (64, 64),
        "layers.0.attention.to_k": shape,
        "layers.0.attention.to_v": (64, 64),
    }
    placement = place(identify(parse(musubi_file(modules), {}), architecture="z_image"))
    assert [m.module_path for m in placement.misfits] == ["layers.0.attention.to_k"]
    assert placement.misfits[0].expected == (64, 64)


def test_a_whole_weight_need_not_divide_into_parts():
    """Lumina 2's fused weight has fewer rows for k and v."""
    found = dotted_file({"layers.0.attention.qkv": (192, 64), "layers.1.attention.qkv": (128, 64)})
    shapes = {f"diffusion_model.layers.{n}.attention.qkv.weight": (192 - 64 * n, 64) for n in range(2)}
    assert placed(found, shapes).complete


OWN = {f"diffusion_model.tower.{n}.{name}.weight": (8, 8) for n in range(2) for name in ("up_proj", "down.proj")}
OWN |= {"diffusion_model.tower.0.up_proj.bias": (8,), "diffusion_model.scale_table": (6, 8)}
"""A model of no family."""


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("diffusion_model.tower.1.up_proj", "diffusion_model.tower.1.up_proj.weight"),
        ("lora_unet_tower_0_down_proj", "diffusion_model.tower.0.down.proj.weight"),
        ("lora_unet_tower_0.down_proj", "diffusion_model.tower.0.down.proj.weight"),
        ("transformer.tower.1.up_proj", "diffusion_model.tower.1.up_proj.weight"),
        ("tower.1.up_proj", "diffusion_model.tower.1.up_proj.weight"),
        ("lora_unet_tower_2_up_proj", None),
        ("lora_unet_up_proj", None),
        ("lora_te_tower_0_up_proj", None),
        ("tower.0.up_proj.weight", None),
    ],
)
def test_a_models_own_names_place_what_no_table_has(name: str, key: str | None):
    tensors = lora(name, 8, 8, random)
    placement = placed(tensors, OWN)
    assert [(p.key, p.rows, p.source_rows, p.by_name) for p in placement.placed] == (
        [(key, None, None, True)] if key else []
    )
    assert bool(placement.homeless) == (key is None)
    if key:
        (piece,) = placement.placed
        part = piece.part(placement.adapter_set.adapters[piece.module_path])
        expected = tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"] / 2
        assert torch.allclose(part.delta_weight(), expected, atol=1e-6)


def test_own_names_of_a_bias_and_of_a_lone_parameter():
    tensors = {"lora_unet_tower_0_up_proj.diff_b": random(8), "diffusion_model.scale_table.diff": random(6, 8)}
    placement = placed(tensors, OWN)
    keys = {"diffusion_model.tower.0.up_proj.bias", "diffusion_model.scale_table"}
    assert placement.complete
    assert {p.key for p in placement.placed} == keys
    assert not placed({"lora_unet_tower_1_up_proj.diff_b": random(8)}, OWN).placed


def test_an_own_name_that_two_weights_go_by_decides_nothing():
    """`up_proj` of one block and `up.proj` of the same: an underscore can be either."""
    both = OWN | {"diffusion_model.tower.0.up.proj.weight": (8, 8)}
    assert placed(lora("lora_unet_tower_0_up_proj", 8, 8), both).homeless == ("tower_0_up_proj",)


def test_an_own_name_of_another_shape_or_prefix():
    (misfit,) = placed(lora("lora_unet_tower_0_up_proj", 8, 16), OWN).misfits
    assert (misfit.key, misfit.expected, misfit.found) == ("diffusion_model.tower.0.up_proj.weight", (8, 8), (8, 16))
    plain = {key.replace("diffusion_model.", "model."): shape for key, shape in OWN.items()}
    assert not placed(lora("lora_unet_tower_0_up_proj", 8, 8), plain).placed
    assert placed(lora("lora_unet_tower_0_up_proj", 8, 8), plain, prefix="model.").complete
