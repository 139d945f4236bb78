"""Musubi's files for ComfyUI's tiny models, and the weights that they should lead to."""

import re

import torch

from lyco_core.formats import parse

from .comfy_models import BLOCKS, WIDTH, tiny_model
from .tables import ARCHITECTURE_OF, targets
from .zoo import dense_loha, dense_lokr, dense_lora

FULL_SIZE = {architecture: model for model, architecture in ARCHITECTURE_OF.items()} | {"wan": "wan21_t2v_1_3b"}
DENSE = {"lora": dense_lora, "loha": dense_loha, "lokr": dense_lokr}

# Where Musubi's names go in ComfyUI, written out once more by hand: (pattern, module, row of parts).
RENAMES = {
    "z_image": [
        (r"(layers\.\d+\.attention)\.to_([qkv])", r"\1.qkv", "qkv"),
        (r"(layers\.\d+\.attention)\.to_out\.0", r"\1.out", ""),
    ],
    "hunyuan_video": [
        (r"(.*)_attn_(qkv|proj)", r"\1_attn.\2", ""),
        (r"(.*_mlp)\.fc1", r"\1.0", ""),
        (r"(.*_mlp)\.fc2", r"\1.2", ""),
    ],
    "hunyuan_video_1_5": [
        (r"(.*)_attn_([qkv])", r"\1_attn.qkv", "qkv"),
        (r"(.*)_attn_(proj)", r"\1_attn.\2", ""),
        (r"(.*_mlp)\.fc1", r"\1.0", ""),
        (r"(.*_mlp)\.fc2", r"\1.2", ""),
        (r"(.*_mod)\.linear", r"\1.lin", ""),
    ],
    "framepack": [
        (r"transformer_blocks\.(\d+)\.attn\.to_([qkv])", r"double_blocks.\1.img_attn.qkv", "qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj", r"double_blocks.\1.txt_attn.qkv", "qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj", ""),
        (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj", ""),
        (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0", ""),
        (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2", ""),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0", ""),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2", ""),
        (r"single_transformer_blocks\.(\d+)\.attn\.to_([qkv])", r"single_blocks.\1.linear1", "qkv"),
        (r"single_transformer_blocks\.(\d+)\.(p)roj_mlp", r"single_blocks.\1.linear1", "qkvp"),
        (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2", ""),
    ],
}


def place_of(architecture: str, path: str, width: int = WIDTH) -> tuple[str, int | None]:
    """(ComfyUI's module, first row in its weight) of a Musubi module; None where the weight is its own."""
    for pattern, module, parts in RENAMES.get(architecture, []):
        if match := re.fullmatch(pattern, path):
            return match.expand(module), parts.index(match[match.lastindex]) * width if parts else None
    return path, None


def tiny_targets(architecture: str) -> dict[str, tuple[int, int]]:
    """Musubi's default targets of the tiny model: of the full-size one, those of the first blocks."""
    state = tiny_model(architecture).model.state_dict()
    shapes: dict[str, tuple[int, int]] = {}
    for path in targets(FULL_SIZE[architecture]):
        if int(re.search(r"(?:blocks|layers)\.(\d+)\.", path)[1]) < BLOCKS:
            module, row = place_of(architecture, path)
            height, columns = state[f"diffusion_model.{module}.weight"].shape
            if row is not None:
                height = 4 * WIDTH if path.endswith("proj_mlp") else WIDTH
            shapes[path] = (height, columns)
    return shapes


def expected_weights(architecture: str, model, tensors: dict[str, torch.Tensor], strength: float):
    """Weights with the dense ΔW of each module added to its rows, in float64."""
    state = {k: v.double() for k, v in model.model.state_dict().items()}
    changed: dict[str, torch.Tensor] = {}
    found = parse(tensors, {})
    names = {path.replace(".", "_"): path for path in tiny_targets(architecture)}
    for name, adapter in found.adapters.items():
        module, row = place_of(architecture, names[name])
        key = f"diffusion_model.{module}.weight"
        weight = changed.setdefault(key, state[key].clone())
        delta = DENSE[adapter.algorithm](adapter)
        first = row or 0
        weight[first : first + delta.shape[0]] += strength * delta
    return changed
