"""Stable Diffusion 3 and 3.5 (medium, large). kohya and ComfyUI share every name and fuse q, k and v."""

from __future__ import annotations

from .dual_stream import DIFFUSERS_QKV
from .table import Architecture, inside, renamed
from .training import MusubiNames, trained_here

__all__ = ["SD3"]

_IMAGE = (
    *renamed({"attn.qkv": DIFFUSERS_QKV["img"], "attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v"}, shape=(3, 1)),
    *renamed({"attn.proj": "attn.to_out.0", "attn2.proj": "attn2.to_out.0"}, shape=(1, 1)),
    *renamed({"mlp.fc1": "ff.net.0.proj"}, shape=(4, 1)),
    *renamed({"mlp.fc2": "ff.net.2"}, shape=(1, 4)),
    # Six vectors, or nine where the block has attn2.
    *renamed({"adaLN_modulation.1": "norm1.linear"}, shape=(6, 1)),
    *renamed({"adaLN_modulation.1": "norm1.linear"}, shape=(9, 1)),
)

_TEXT = (
    *renamed({"attn.qkv": DIFFUSERS_QKV["txt"]}, shape=(3, 1)),
    *renamed({"attn.proj": "attn.to_add_out"}, shape=(1, 1)),
    *renamed({"mlp.fc1": "ff_context.net.0.proj"}, shape=(4, 1)),
    *renamed({"mlp.fc2": "ff_context.net.2"}, shape=(1, 4)),
    *renamed({"adaLN_modulation.1": "norm1_context.linear"}, shape=(6, 1)),
    # Nothing follows the text in the last block, of two vectors: there, and at the end, diffusers keeps the scale
    # above the shift.
    *renamed({"adaLN_modulation.1": "norm1_context.linear"}, shape=(2, 1), swapped=("diffusers",)),
)

SD3 = Architecture(
    id="sd3",
    title="Stable Diffusion 3/3.5",
    groups=(
        *(
            g
            for stream, groups in (("x_block", _IMAGE), ("context_block", _TEXT))
            for g in inside(
                f"joint_blocks.{{n}}.{stream}", f"joint_blocks.{{n}}.{stream}", "transformer_blocks.{n}", groups
            )
        ),
        *renamed(
            {
                "x_embedder.proj": "pos_embed.proj",
                "context_embedder": "context_embedder",
                "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
                "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
                "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
                "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
                "final_layer.linear": "proj_out",
            }
        ),
        *renamed({"final_layer.adaLN_modulation.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
    ),
    depths={"joint_blocks": 38},
    widths=(1536, 2432),
    sizes={1536: {"joint_blocks": 24}, 2432: {"joint_blocks": 38}},
    training=trained_here(
        MusubiNames("sd3", "stable-diffusion-3", "https://github.com/Stability-AI/generative-models", "lora_sd3"),
        "joint_blocks",
        "SD3",
        excludes=(r".*adaLN_modulation.*",),
        shift=3.0,
    ),
)
