"""Lens: one set of names in every layout, those of Qwen-Image but for attention and the MLPs."""

from fractions import Fraction

from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["LENS"]

_MLP = Fraction(8, 3)
_BLOCK = tuple(
    g
    for stream, out in (("img", "to_out.0"), ("txt", "to_add_out"))
    for g in (
        *same(f"attn.{stream}_qkv", shape=(3, 1)),
        *same(f"attn.{out}", shape=(1, 1)),
        *same(f"{stream}_mod.1", shape=(6, 1)),
        *same(f"{stream}_mlp.w1", f"{stream}_mlp.w3", shape=(_MLP, 1)),
        *same(f"{stream}_mlp.w2", shape=(1, _MLP)),
    )
)

LENS = Architecture(
    id="lens",
    title="Lens",
    groups=(
        *inside_all("transformer_blocks.{n}", _BLOCK),
        *same("time_text_embed.timestep_embedder.linear_1", inputs=(256,)),
        *same("time_text_embed.timestep_embedder.linear_2", shape=(1, 1)),
        *same("norm_out.linear", shape=(2, 1)),
        *same("img_in", inputs=(128,)),
        *same("txt_in", inputs=(2880, 11520)),
        *same("proj_out", outputs=(128,)),
    ),
    depths={"transformer_blocks": 48},
    widths=(1536,),
    training=trained_here(MusubiNames("lens"), "transformer_blocks", "LENS", excludes=(r".*_mod\..*",), shift=6.23),
)
