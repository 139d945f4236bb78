"""Lumina-Image 2.0, Z-Image's ancestor: a third as many heads for keys and for values as for queries."""

from fractions import Fraction

from .table import Architecture, group, inside_all, renamed, same
from .training import MusubiNames, trained_here

__all__ = ["LUMINA2"]

_BLOCK = (
    group(
        "attention.qkv",
        "attention.qkv",
        "attn.to_q attn.to_k attn.to_v",
        heights=(3, 1, 1),
        shape=(Fraction(5, 3), 1),
    ),
    *renamed({"attention.out": "attn.to_out.0"}, shape=(1, 1)),
    *renamed({"feed_forward.w1": "feed_forward.linear_1", "feed_forward.w3": "feed_forward.linear_3"}, shape=(4, 1)),
    *renamed({"feed_forward.w2": "feed_forward.linear_2"}, shape=(1, 4)),
)
_MODULATION = renamed({"adaLN_modulation.1": "norm1.linear"})

LUMINA2 = Architecture(
    id="lumina2",
    title="Lumina-Image 2.0",
    groups=(
        *inside_all("layers.{n}", _BLOCK + _MODULATION),
        *inside_all("noise_refiner.{n}", _BLOCK + _MODULATION),
        *inside_all("context_refiner.{n}", _BLOCK),
        *same("x_embedder"),
        *renamed(
            {
                "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
                "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
                "cap_embedder.1": "time_caption_embed.caption_embedder.1",
                "final_layer.adaLN_modulation.1": "norm_out.linear_1",
                "final_layer.linear": "norm_out.linear_2",
            }
        ),
    ),
    depths={"layers": 26, "noise_refiner": 2, "context_refiner": 2},
    widths=(2304,),
    training=trained_here(
        MusubiNames("lumina2", "lumina-2", "https://github.com/Alpha-VLLM/Lumina-Image-2.0", "lora_lumina"),
        "context_refiner noise_refiner layers",
        "LUMINA2",
        excludes=(r".*adaLN_modulation.*",),
        shift=6.0,
    ),
)
