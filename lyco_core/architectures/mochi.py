"""Mochi 1: a stream of video and a narrower one of text attend to each other."""

from fractions import Fraction

from .table import Architecture, inside, renamed
from .training import MusubiNames, trained_here

__all__ = ["MOCHI"]

_LAST = 47
_HALF = Fraction(1, 2)
_BLOCK = (
    *renamed({"mod_x": "norm1.linear"}, shape=(4, 1)),
    *renamed({"attn.qkv_x": "attn1.to_q attn1.to_k attn1.to_v"}, shape=(3, 1)),
    *renamed(
        {"attn.qkv_y": "attn1.add_q_proj attn1.add_k_proj attn1.add_v_proj"},
        shape=(3, _HALF),
    ),
    *renamed({"attn.proj_x": "attn1.to_out.0"}, shape=(1, 1)),
    *renamed({"attn.proj_y": "attn1.to_add_out"}, shape=(_HALF, 1)),
    *renamed({"mlp_x.w2": "ff.net.2"}, shape=(1, Fraction(8, 3))),
    *renamed({"mlp_y.w2": "ff_context.net.2"}, shape=(_HALF, Fraction(4, 3))),
    # diffusers keeps the gate and what it gates the other way round.
    *renamed({"mlp_x.w1": "ff.net.0.proj"}, shape=(Fraction(16, 3), 1), swapped=("diffusers",)),
    *renamed({"mlp_y.w1": "ff_context.net.0.proj"}, shape=(Fraction(8, 3), _HALF), swapped=("diffusers",)),
)

MOCHI = Architecture(
    id="mochi",
    title="Mochi",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
        *renamed(
            {f"blocks.{n}.mod_y": f"transformer_blocks.{n}.norm1_context.linear" for n in range(_LAST)},
            shape=(2, 1),
        ),
        # The last block's text is only scaled.
        *renamed(
            {f"blocks.{_LAST}.mod_y": f"transformer_blocks.{_LAST}.norm1_context.linear_1"},
            shape=(_HALF, 1),
        ),
        *renamed({"x_embedder.proj": "patch_embed.proj"}),
        *renamed({"t_embedder.mlp.0": "time_embed.timestep_embedder.linear_1"}, inputs=(256,)),
        *renamed({"t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2"}, shape=(1, 1)),
        *renamed(
            {
                "t5_y_embedder.to_kv": "time_embed.pooler.to_kv",
                "t5_y_embedder.to_q": "time_embed.pooler.to_q",
                "t5_y_embedder.to_out": "time_embed.pooler.to_out",
                "t5_yproj": "time_embed.caption_proj",
            },
            inputs=(4096,),
        ),
        *renamed({"final_layer.linear": "proj_out"}, inputs=(3072,), outputs=(48,)),
        # diffusers keeps the final modulation's scale above its shift.
        *renamed({"final_layer.mod": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
    ),
    depths={"blocks": 48},
    widths=(3072,),
    training=trained_here(MusubiNames("mochi"), "blocks", "MOCHI", excludes=(r".*mod_[xy]",), shift=6.0, steps=(16, 6)),
)
