"""Krea 2. Musubi and ComfyUI share every name; diffusers has its own."""

from fractions import Fraction

from .table import Architecture, Group, Shape, group, inside, renamed
from .training import MusubiNames, trained_here

__all__ = ["KREA2"]


def _block(
    heights: tuple[int, int, int], qkv: Shape | None, wide: Shape | None, up: Shape | None, down: Shape | None
) -> tuple[Group, ...]:
    """A block's groups.

    Args:
        heights: how many rows queries, keys and values have, relative to each other.
        qkv: their shape together; the others are those of what has the model's width, and of the MLP's layers.
    """
    ours = "attn.wq attn.wk attn.wv"
    return (
        group(ours, ours, "attn.to_q attn.to_k attn.to_v", heights=heights, shape=qkv),
        *renamed({"attn.gate": "attn.to_gate", "attn.wo": "attn.to_out.0"}, shape=wide),
        *renamed({"mlp.gate": "ff.gate", "mlp.up": "ff.up"}, shape=up),
        *renamed({"mlp.down": "ff.down"}, shape=down),
    )


_BLOCK = _block((4, 1, 1), (Fraction(3, 2), 1), (1, 1), (Fraction(8, 3), 1), (1, Fraction(8, 3)))
_TEXT = _block((1, 1, 1), None, None, None, None)  # as wide as the text's embedding

KREA2 = Architecture(
    id="krea2",
    title="Krea 2",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
        *(
            g
            for name in ("layerwise_blocks.{n}", "refiner_blocks.{n}")
            for g in inside(f"txtfusion.{name}", f"txtfusion.{name}", f"text_fusion.{name}", _TEXT)
        ),
        *renamed(
            {
                "first": "img_in",
                "tmlp.0": "time_embed.linear_1",
                "tmlp.2": "time_embed.linear_2",
                "tproj.1": "time_mod_proj",
                "txtmlp.1": "txt_in.linear_1",
                "txtmlp.3": "txt_in.linear_2",
                "txtfusion.projector": "text_fusion.projector",
                "last.linear": "final_layer.linear",
            }
        ),
    ),
    depths={"blocks": 28, "txtfusion.layerwise_blocks": 2, "txtfusion.refiner_blocks": 2},
    widths=(6144,),
    training=trained_here(
        MusubiNames("krea2", "Krea-2", "https://github.com/krea-ai/krea-2", "lora_krea2", (1024, 1024)),
        "txtfusion.layerwise_blocks txtfusion.refiner_blocks blocks",
        "KREA2",
        outside=(r".*",),
        shift=2.5,
    ),
)
