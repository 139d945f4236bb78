"""Files as trainers write them for image models of 2026, full size, the first block and the last: told, and exact."""

from pathlib import Path

import pytest
import torch
from lyco_testing.families import paths_of, renamed
from lyco_testing.tables import OTHERS, weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.adapters import LoRA
from lyco_core.architectures import ARCHITECTURES, identify, recognise
from lyco_core.conversion import ConvertOptions, convert_file
from lyco_core.formats import parse
from lyco_core.layouts import Layout
from lyco_core.placement import place

RANK = 2
NEW = sorted(
    {
        *("boogu", "flux3", "hidream_o1", "hunyuan_image", "ideogram4", "joyimage", "lens", "longcat_image"),
        *("mage_flow", "qwen_image_2_1", "sdxl_refiner", "stable_cascade", "stable_cascade_b"),
    }
)


def part_of(model: str, layout: Layout, numbers: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The modules outside of the blocks, and those of the blocks that have one of the numbers."""
    family = ARCHITECTURES[OTHERS[model]]
    return {
        path: shape
        for path, shape in renamed(model, layout).items()
        if family.template_of(path, layout)[1] in ("", *numbers)
    }


def onetrainer(modules: dict[str, tuple[int, int]], prefix: str = "transformer.") -> dict[str, Tensor]:
    """LoRA of all layers with an alpha, bfloat16, under diffusers' names."""
    generator = torch.Generator().manual_seed(26)
    made: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        made[f"{prefix}{path}.alpha"] = torch.tensor(4.0, dtype=torch.bfloat16)
        for name, shape in (("lora_down", (RANK, columns)), ("lora_up", (rows, RANK))):
            made[f"{prefix}{path}.{name}.weight"] = torch.randn(shape, generator=generator).bfloat16()
    return made


def change(tensors: dict[str, Tensor], module: str, vector: Tensor) -> Tensor:
    """What a LoRA adds to its module's output, in float64."""
    up, down = (tensors[f"{module}.{name}.weight"].double() for name in ("lora_up", "lora_down"))
    return up @ (down @ vector) * tensors[f"{module}.alpha"].double() / down.shape[0]


@pytest.mark.parametrize(
    ("model", "fused", "parts"),
    [
        (
            "ideogram4",
            "layers.33.attention.qkv",
            ("layers.33.attention.to_q", "layers.33.attention.to_k", "layers.33.attention.to_v"),
        ),
        (
            "qwen_image_2_1",
            "transformer_blocks.31.img_mlp.gate_up",
            ("transformer_blocks.31.img_mlp.gate_layer", "transformer_blocks.31.img_mlp.proj"),
        ),
        (
            "hunyuan_image",
            "double_blocks.19.txt_attn.qkv",
            tuple(f"transformer_blocks.19.attn.add_{name}_proj" for name in "qkv"),
        ),
    ],
)
def test_diffusers_names_are_rows_of_comfyuis_weight(model: str, fused: str, parts: tuple[str, ...], tmp_path: Path):
    last = fused.split(".")[1]
    tensors = onetrainer(part_of(model, "diffusers", ("0", last)))
    save_file(tensors, tmp_path / "a.safetensors")
    conversion = convert_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", ConvertOptions("comfyui"))
    assert conversion.source.architecture is ARCHITECTURES[OTHERS[model]]
    made = load_file(tmp_path / "b.safetensors")
    names = {key.removeprefix("diffusion_model.").split(".lora_")[0] for key in made if ".lora_" in key}
    assert names <= paths_of(model)
    columns = tensors[f"transformer.{parts[0]}.lora_down.weight"].shape[1]
    vector = torch.randn(columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.cat([change(tensors, f"transformer.{part}", vector) for part in parts])
    torch.testing.assert_close(change(made, f"diffusion_model.{fused}", vector), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("model", NEW)
@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_two_blocks_with_all_else_are_told(model: str, layout: Layout):
    """As a file of a bug report has them: the first block and the last, and what is outside of the blocks."""
    family = ARCHITECTURES[OTHERS[model]]
    numbers = {str(number) for depth in family.depths.values() for number in (0, depth - 1)}
    modules = part_of(model, layout, tuple(numbers))
    prefix = "diffusion_model." if layout == "comfyui" else family.diffusers_prefix
    outline = {
        f"{prefix}{path}.{name}.weight": torch.empty(*shape, device="meta")
        for path, (rows, columns) in modules.items()
        for name, shape in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK)))
    }
    found = identify(parse(outline, {}))
    assert found.architecture is family
    assert isinstance(next(iter(found.adapters.values())), LoRA)
    placement = place(found, weights(model))
    assert placement.complete
    assert placement.modules == len(modules)


@pytest.mark.parametrize("layout", ["musubi", "comfyui"])
def test_musubis_hidream_o1_has_the_whole_models_names(layout: Layout):
    """The model that Musubi trains is a module of what it wraps, and its tower has mergers that ComfyUI drops."""
    modules = part_of("hidream_o1", layout, ("0", "35"))
    outline = {
        f"lora_unet_{path.replace('.', '_')}.{name}": torch.empty(*shape, device="meta")
        for path, (rows, columns) in modules.items()
        for name, shape in (("lokr_w1", (1, 1)), ("lokr_w2_a", (rows, 1)), ("lokr_w2_b", (1, columns)))
    }
    assert all(key.startswith("lora_unet_model_") == (layout == "musubi") for key in outline)
    found = identify(parse(outline, {}))
    assert found.architecture is ARCHITECTURES["hidream_o1"]
    assert place(found, weights("hidream_o1")).complete
    dropped = "lora_unet_model_visual_deepstack_merger_list_0_linear_fc1"
    more = {f"{dropped}.lokr_w1": torch.empty(1, 1, device="meta"), f"{dropped}.lokr_w2": torch.empty(8, 8)}
    placement = place(identify(parse(outline | more, {})), weights("hidream_o1"))
    assert [name.removeprefix("model.") for name in placement.homeless] == ["visual.deepstack_merger_list.0.linear_fc1"]


def test_families_that_share_names_are_told_by_their_sizes():
    """Blocks of the same names: of Z-Image and Ideogram 4, of HunyuanVideo and HunyuanImage, of Qwen-Image's three."""
    for model, width in (("ideogram4", 4608), ("z_image", 3840)):
        modules = {f"layers.{n}.attention.to_{name}": (width, width) for n in range(30) for name in "qkv"}
        outline = {
            f"transformer.{path}.{name}.weight": torch.empty(*shape, device="meta")
            for path, (rows, columns) in modules.items()
            for name, shape in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK)))
        }
        found = identify(parse(outline, {}))
        assert found.architecture is ARCHITECTURES[model]
    for model in ("mage_flow", "lens", "longcat_image", "hunyuan_image"):
        shapes = {key.removeprefix("diffusion_model.").removesuffix(".weight"): s for key, s in weights(model).items()}
        told = recognise(shapes)
        assert told is not None
        assert told[0].id == OTHERS[model]
