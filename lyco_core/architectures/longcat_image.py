"""LongCat-Image: FLUX.1's blocks, half as many, and no vector beside the time."""

from __future__ import annotations

from .flux import BLOCKS, SHARED
from .table import Architecture, renamed

__all__ = ["LONGCAT_IMAGE"]

LONGCAT_IMAGE = Architecture(
    id="longcat_image",
    title="LongCat-Image",
    groups=(
        *BLOCKS,
        *SHARED,
        *renamed({"txt_in": "context_embedder"}, inputs=(3584,)),
        *renamed({"time_in.in_layer": "time_embed.timestep_embedder.linear_1"}, inputs=(256,)),
        *renamed({"time_in.out_layer": "time_embed.timestep_embedder.linear_2"}, shape=(1, 1)),
    ),
    depths={"double_blocks": 10, "single_blocks": 20},
    widths=(3072,),
)
