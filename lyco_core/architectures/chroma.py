"""Chroma: FLUX.1 without modulations, which one small network (`distilled_guidance_layer`) makes for all blocks.

All names of its blocks are FLUX.1's, so only the model says for which of the two a file is;
both go onto the same weights. Chroma Radiance reads and writes pixels: it has other ends, ComfyUI's own.
"""

from __future__ import annotations

from .dual_stream import COMFYUI_NORMS, double_stream, single_stream
from .flux import ENDS, blocks
from .table import Architecture, inside_all, renamed, same
from .training import MusubiNames, trained_here

__all__ = ["CHROMA"]

_GUIDANCE = (
    *same("in_proj", "out_proj"),
    *renamed({"layers.{n}.in_layer": "layers.{n}.linear_1", "layers.{n}.out_layer": "layers.{n}.linear_2"}),
)

_PIXELS = renamed(
    dict.fromkeys(
        (
            "img_in_patch",
            "nerf_image_embedder.embedder.0",
            "nerf_blocks.{n}.param_generator",
            "nerf_final_layer.linear",
            "nerf_final_layer_conv.conv",
        )
    )
)

CHROMA = Architecture(
    id="chroma",
    title="Chroma",
    groups=(
        *blocks(double_stream({}, ff=("net.0.proj", "net.2"), mlp=(4, 4), modulated=False), single_stream(None)),
        *ENDS,
        *renamed({"txt_in": "context_embedder"}, inputs=(4096,)),
        *inside_all("distilled_guidance_layer", _GUIDANCE),
        *_PIXELS,
    ),
    depths={"double_blocks": 19, "single_blocks": 38, "nerf_blocks": 4},
    widths=(3072,),
    training=trained_here(
        MusubiNames("chroma", "chroma", "https://huggingface.co/lodestones/Chroma", "lora_flux"),
        "double_blocks single_blocks nerf_blocks",
        "CHROMA",
        excludes=(r"nerf_blocks\..*",),
        norms=COMFYUI_NORMS,
        sampling="sigmoid",
        shift=1.0,
    ),
)
