"""JoyImage: one set of names, diffusers' own, in every layout."""

from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["JOYIMAGE"]

_BLOCK = tuple(
    g
    for stream in ("img", "txt")
    for g in (
        *same(f"attn.{stream}_attn_qkv", shape=(3, 1)),
        *same(f"attn.{stream}_attn_proj", shape=(1, 1)),
        *same(f"{stream}_mlp.net.0.proj", shape=(4, 1)),
        *same(f"{stream}_mlp.net.2", shape=(1, 4)),
    )
)

JOYIMAGE = Architecture(
    id="joyimage",
    title="JoyImage",
    groups=(
        *inside_all("double_blocks.{n}", _BLOCK),
        *same("condition_embedder.time_embedder.linear_1", inputs=(256,)),
        *same("condition_embedder.time_embedder.linear_2", "condition_embedder.text_embedder.linear_2", shape=(1, 1)),
        *same("condition_embedder.time_proj", shape=(6, 1)),
        *same("condition_embedder.text_embedder.linear_1", inputs=(4096,)),
        *same("img_in", "proj_out"),
    ),
    depths={"double_blocks": 40},
    widths=(4096,),
    training=trained_here(MusubiNames("joyimage"), "double_blocks", "JOYIMAGE", shift=1.5),
)
