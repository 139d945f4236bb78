"""LongCat-Image: FLUX.1's blocks, half as many, and no vector beside the time."""

from __future__ import annotations

from .dual_stream import COMFYUI_NORMS
from .flux import BLOCKS, SHARED
from .table import Architecture, renamed
from .training import MusubiNames, trained_here

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
    training=trained_here(
        MusubiNames("longcat_image"),
        "double_blocks single_blocks",
        "LONGCAT_IMAGE",
        excludes=(r".*(img_mod|txt_mod|modulation)\..*",),
        norms=COMFYUI_NORMS,
        sampling="flux_shift",
        shift=1.0,
    ),
)
