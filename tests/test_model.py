"""A model's one door: identify, place, select, and change a state dict by all of it or by nothing."""

from pathlib import Path

import pytest
import torch
from lyco_testing.stored_forms import SAID, marker, random_codes
from lyco_testing.tables import dotted_file, lora, musubi_file, outline, random, targets, weights
from lyco_testing.toy import WIDTH, z_image
from safetensors.torch import save_file
from torch import Tensor

from lyco_core.adapter_set import AdapterSet
from lyco_core.adapters import DoRA, LoRA
from lyco_core.architectures import ARCHITECTURES
from lyco_core.delta_weights import delta_weights
from lyco_core.errors import AdapterError, PlacementError, SelectionError
from lyco_core.formats import parse
from lyco_core.model import Model
from lyco_core.placement import Placement
from lyco_core.selection import EVERYTHING, Selection

Tensors = dict[str, Tensor]
BLOCK = "diffusion_model.layers.0"


def state_dict() -> Tensors:
    torch.manual_seed(0)
    return {key: torch.randn(shape) / 8 for key, shape in z_image().items()}


def musubi() -> Tensors:
    """A LoKr for the attention of both blocks, q, k and v apart, as Musubi Tuner spells it."""
    names = [f"layers.{n}.attention.to_{part}" for n in range(2) for part in ("q", "k", "v", "out.0")]
    torch.manual_seed(1)
    return musubi_file(dict.fromkeys(names, (WIDTH, WIDTH)), "lokr", random)


def on_toy(tensors: Tensors, selection: Selection = EVERYTHING) -> Placement:
    return Model.of(z_image()).place(parse(tensors, {}), selection)


def test_a_state_dict_changes_by_the_delta_weights_and_back():
    patched, before = state_dict(), state_dict()
    placement = Model.of(patched).place(parse(musubi(), {}))
    placement.apply_(patched, 0.5)
    deltas = dict(delta_weights(placement))
    assert deltas.keys() == {
        f"diffusion_model.layers.{n}.attention.{x}.weight" for n in range(2) for x in ("qkv", "out")
    }
    for key, weight in patched.items():
        expected = before[key] + 0.5 * deltas[key] if key in deltas else before[key]
        assert torch.allclose(weight, expected, rtol=0, atol=1e-6)
    assert not torch.equal(patched[f"{BLOCK}.attention.qkv.weight"], before[f"{BLOCK}.attention.qkv.weight"])
    placement.apply_(patched, -0.5)
    assert all(torch.allclose(patched[key], before[key], rtol=0, atol=1e-6) for key in before)


def test_parameters_that_are_trained_are_changed_too():
    before = state_dict()
    parameters = {key: torch.nn.Parameter(weight.clone()) for key, weight in before.items()}
    on_toy(musubi()).apply_(parameters)
    key = f"{BLOCK}.attention.out.weight"
    assert parameters[key].is_leaf
    assert not torch.equal(parameters[key], before[key])


def test_what_changes_a_weight_is_in_order_with_its_strength():
    chosen = Selection.of(exclude=[r".*\.to_k"], block_strengths=[(r"layers\.0\..*", 0.5), (r".*to_v", -2.0)])
    placement = on_toy(musubi(), chosen)
    assert {key: [(placed.rows, strength) for placed, strength in c] for key, c in placement.by_weight.items()} == {
        f"{BLOCK}.attention.qkv.weight": [((0, WIDTH), 0.5), ((2 * WIDTH, 3 * WIDTH), -2.0)],
        f"{BLOCK}.attention.out.weight": [(None, 0.5)],
        "diffusion_model.layers.1.attention.qkv.weight": [((0, WIDTH), 1.0), ((2 * WIDTH, 3 * WIDTH), -2.0)],
        "diffusion_model.layers.1.attention.out.weight": [(None, 1.0)],
    }
    patched, before = state_dict(), state_dict()
    placement.apply_(patched)
    deltas = dict(delta_weights(on_toy(musubi())))
    change = patched[f"{BLOCK}.attention.qkv.weight"] - before[f"{BLOCK}.attention.qkv.weight"]
    of_all = deltas[f"{BLOCK}.attention.qkv.weight"]
    expected = torch.cat([0.5 * of_all[:WIDTH], 0 * of_all[:WIDTH], -2 * of_all[2 * WIDTH :]])
    assert torch.allclose(change, expected, rtol=0, atol=1e-6)
    assert torch.allclose(dict(delta_weights(placement))[f"{BLOCK}.attention.qkv.weight"], expected, rtol=0, atol=1e-6)


def test_a_pattern_that_matches_nothing_is_refused():
    patched, before = state_dict(), state_dict()
    with pytest.raises(SelectionError, match=r"the pattern 'nothing\.\*' matches no module"):
        on_toy(musubi(), Selection.of(include=["nothing.*"])).apply_(patched)
    assert all(torch.equal(patched[key], before[key]) for key in before)


def with_stranger() -> Tensors:
    return musubi() | lora("lora_unet_layers_7_attention_out", WIDTH, WIDTH, random)


def test_what_is_left_out_by_a_selection_needs_no_place():
    assert on_toy(with_stranger()).left == ("layers.7.attention.out",)
    placement = on_toy(with_stranger(), Selection.of(exclude=[r"layers\.7\..*"])).require_complete()
    assert len(placement.by_weight) == 4
    assert "lora_unet_layers_7_attention_out" in {name for names in placement.names.values() for name in names}


def _missing(patched: Tensors) -> Placement:
    del patched["diffusion_model.layers.1.attention.out.weight"]
    return on_toy(musubi())


def _float8(patched: Tensors) -> Placement:
    key = "diffusion_model.layers.1.attention.out.weight"
    patched[key] = patched[key].to(torch.float8_e4m3fn)
    return on_toy(musubi())


def _of_another_shape(patched: Tensors) -> Placement:
    patched["diffusion_model.layers.1.attention.out.weight"] = torch.ones(WIDTH, 2 * WIDTH)
    return on_toy(musubi())


def _incomplete(_: Tensors) -> Placement:
    return on_toy(with_stranger())


def _outline(_: Tensors) -> Placement:
    meta = {key: t if key.endswith("alpha") else t.to("meta") for key, t in musubi().items()}
    return on_toy(meta)


def _magnitudes_of_other_inputs(_: Tensors) -> Placement:
    """The last one's, which only the weight itself shows: half as many magnitudes, as if there were kernels."""
    placement = on_toy(musubi())
    adapters = dict(placement.adapter_set.adapters)
    path = placement.placed[-1].module_path
    inner = LoRA(torch.randn(WIDTH, 2), torch.randn(2, WIDTH))
    adapters[path] = DoRA(inner, torch.ones(1, WIDTH // 2), 1)
    found = AdapterSet(**{**vars(placement.adapter_set), "adapters": adapters})
    return Model.of(z_image()).place(found)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_missing, PlacementError, r"layers\.1\.attention\.out\.weight: is not among the weights to change"),
        (_float8, PlacementError, r"layers\.1\.attention\.out\.weight: is \[24, 24\] of float8_e4m3fn, expected "),
        (_of_another_shape, PlacementError, r"is \[24, 48\] of float32, expected \[24, 24\] of float16"),
        (_incomplete, PlacementError, r"1 of 9 modules are not in the model"),
        (_outline, AdapterError, r"its numbers are not read; load the file, not its outline"),
        (_magnitudes_of_other_inputs, AdapterError, r"24 rows and 12 inputs, this one is \[24, 24\]"),
    ],
)
def test_all_or_nothing(damage, error: type[Exception], message: str):
    patched = state_dict()
    placement = damage(patched)
    before = {key: weight.clone() for key, weight in patched.items()}
    with pytest.raises(error, match=message):
        placement.apply_(patched)
    assert all(torch.equal(patched[key].float(), before[key].float()) for key in before)


def test_what_has_a_place_alone_is_asked_for_by_name():
    patched, before = state_dict(), state_dict()
    placement = on_toy(with_stranger())
    placement.without(placement.left).apply_(patched)
    assert sum(not torch.equal(patched[key], before[key]) for key in before) == 4


def test_a_model_decides_between_families_of_the_same_names():
    """Wan's LoRA for q alone fits each size of it; a set that is identified already is not told again."""
    tensors = musubi_file({"blocks.0.self_attn.q": (1536, 1536)})
    model = Model.of(weights("wan21_t2v_1_3b"))
    placement = model.place(parse(tensors, {}))
    assert placement.adapter_set.architecture is model.architecture
    again = model.place(placement.adapter_set)
    assert (again.placed, again.adapter_set.names) == (placement.placed, placement.adapter_set.names)


def test_a_stranger_is_named():
    placement = Model.of(weights("z_image")).place(parse(musubi_file(targets("wan21_t2v_1_3b")), {}))
    assert not placement.placed
    assert placement.problem("the base").startswith(
        "is an adapter for Wan 2.1/2.2, the base is Z-Image; 300 of 300 modules"
    )


def test_a_model_in_other_names():
    """The base's own layout is where an adapter goes, whatever the file's is."""
    shapes = {
        key.replace("diffusion_model.", "transformer."): shape
        for key, shape in {
            f"diffusion_model.layers.{n}.attention.{part}.weight": (64, 64)
            for n in range(2)
            for part in ("to_q", "to_k", "to_v", "to_out.0")
        }.items()
    }
    model = Model.of(shapes)
    assert (model.architecture and model.architecture.id, model.layout) == ("z_image", "musubi")
    fused = {"layers.0.attention.qkv": (192, 64), "layers.0.attention.out": (64, 64)}
    placement = model.place(parse(dotted_file(fused), {})).require_complete()
    assert [(p.key, p.source_rows) for p in placement.placed] == [
        ("transformer.layers.0.attention.to_q.weight", (0, 64)),
        ("transformer.layers.0.attention.to_k.weight", (64, 128)),
        ("transformer.layers.0.attention.to_v.weight", (128, 192)),
        ("transformer.layers.0.attention.to_out.0.weight", None),
    ]


def test_a_model_is_told_in_a_line():
    assert repr(Model.of(state_dict())) == f"Model(Z-Image, {len(z_image())} weights)"
    assert repr(Model.of({"a.weight": (2, 2)})) == "Model(unknown architecture, 1 weight)"


def test_names_that_are_comfyuis_too_decide_between_families():
    """Wan's names are the same in Musubi's code and in ComfyUI's; FLUX.1's, FLUX.2's and HunyuanVideo's are alike."""
    wan = Model.of(weights("wan21_t2v_1_3b"))
    assert (wan.layout, wan.naming) == ("musubi", "comfyui")
    flux = musubi_file({"double_blocks.0.img_attn.proj": (32, 32)})
    assert wan.identify(parse(flux, {})).architecture is ARCHITECTURES["flux1"]
    assert Model.of(weights("z_image")).naming == "comfyui"


@pytest.mark.parametrize("module", ["double_blocks.0.img_mlp.0", "single_blocks.0.linear2"])
def test_a_model_of_other_names_decides_too(module: str):
    """FLUX.2 and HunyuanVideo have modules of these names, and an OFT tells no width."""
    diffusers: dict[str, tuple[int, ...]] = {}
    for key, (height, *columns) in weights("flux1_kontext").items():
        path = key.removeprefix("diffusion_model.").removesuffix(".weight")
        for target in ARCHITECTURES["flux1"].locate(path, "comfyui", "diffusers"):
            start, stop, of = target.source
            diffusers[f"{target.path}.weight"] = height * (stop - start) // of, *columns
    rows = weights("flux1_kontext")[f"diffusion_model.{module}.weight"][0]
    found = parse({f"lora_unet_{module.replace('.', '_')}.oft_blocks": outline(rows // 4, 4, 4)}, {})
    placement = Model.of(diffusers).place(found).require_complete()
    assert placement.adapter_set.architecture is ARCHITECTURES["flux1"]
    assert placement.modules == 1


@pytest.mark.parametrize("form", ["fp8", "nvfp4", "w4a4", "nf4"])
def test_a_quantized_checkpoint_is_known_by_the_shapes_of_its_weights(tmp_path: Path, form: str):
    """Also where codes are half as wide as the weights, or in one column."""
    stored: Tensors = {}
    shapes = {key: tuple(64 * (n // WIDTH) or 64 for n in shape) for key, shape in z_image().items()}
    for key, (rows, columns) in shapes.items():
        stem = key.removesuffix("weight")
        if form == "nf4":
            parts = {"weight": torch.zeros(rows * columns // 2, 1, dtype=torch.uint8), "weight.absmax": torch.ones(1)}
        else:
            parts = random_codes(form, rows, columns, 0) | {"comfy_quant": marker(SAID[form])}
        stored |= {f"{stem}{role}": tensor for role, tensor in parts.items()}
    save_file(stored, tmp_path / "model.safetensors")
    model = Model.of_file(tmp_path / "model.safetensors")
    assert model.architecture is ARCHITECTURES["z_image"]
    assert form == "nf4" or all(model.shapes[key] == shape for key, shape in shapes.items())
