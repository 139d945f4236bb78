"""HiDream-O1: a language model that sees (Qwen3-VL) and draws. Musubi has it in a module of what it trains."""

import dataclasses
from fractions import Fraction

from .table import Architecture, Group, group, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["HIDREAM_O1"]

_LAYER = (
    *same("self_attn.q_proj", "self_attn.o_proj", shape=(1, 1)),
    *same("self_attn.k_proj", "self_attn.v_proj", shape=(Fraction(1, 4), 1)),
    *same("mlp.gate_proj", "mlp.up_proj", shape=(3, 1)),
    *same("mlp.down_proj", shape=(1, 3)),
)
_VISUAL = same("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")  # narrower than the model

_GROUPS = (
    *inside_all("language_model.layers.{n}", _LAYER),
    *inside_all("visual.blocks.{n}", _VISUAL),
    *same("visual.patch_embed.proj", "visual.merger.linear_fc1", "visual.merger.linear_fc2"),
    # ComfyUI drops them: what they give is used nowhere.
    *(group(f"visual.deepstack_merger_list.{{n}}.{name}", None, None) for name in ("linear_fc1", "linear_fc2")),
    *same("t_embedder1.mlp.0", inputs=(256,)),
    *same("t_embedder1.mlp.2", shape=(1, 1)),
    *same("x_embedder.proj1", inputs=(3072,)),
    *same("x_embedder.proj2", shape=(1, Fraction(1, 4))),
    *same("final_layer2.linear", outputs=(3072,)),
)
_DEPTHS = {"language_model.layers": 36, "visual.blocks": 27, "visual.deepstack_merger_list": 3}


def _as_musubis(g: Group) -> Group:
    return dataclasses.replace(g, musubi=tuple(f"model.{name}" for name in g.musubi or ()))


HIDREAM_O1 = Architecture(
    id="hidream_o1",
    title="HiDream-O1",
    groups=tuple(map(_as_musubis, _GROUPS)),
    depths={f"model.{block}": count for block, count in _DEPTHS.items()},
    widths=(4096,),
    musubi_lora_only=True,
    training=trained_here(
        MusubiNames(
            "hidream_o1_image", "HiDream-O1-Image", "https://github.com/HiDream-ai/HiDream-O1-Image", "lora_hidream_o1"
        ),
        "language_model.layers",
        "",
        excludes=(r"model\.visual\..*",),  # what sees control images; include_patterns brings it back
        outside=(r"model\.(visual\.merger|x_embedder|final_layer2)\..*",),
        sampling="uniform",
        shift=3.0,
        steps=(32, 4),
        learns_data=True,
    ),
)
