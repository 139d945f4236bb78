"""Chroma: FLUX.1 without modulations, which one small network (`distilled_guidance_layer`) makes for all blocks.

All names of its blocks are FLUX.1's, so only the model says for which of the two a file is;
both go onto the same weights.
"""

from __future__ import annotations

from .dual_stream import double_stream, single_stream
from .flux import ENDS, blocks
from .table import Architecture, inside_all, renamed, same

__all__ = ["CHROMA"]

_GUIDANCE = (
    *same("in_proj", "out_proj"),
    *renamed({"layers.{n}.in_layer": "layers.{n}.linear_1", "layers.{n}.out_layer": "layers.{n}.linear_2"}),
)

CHROMA = Architecture(
    id="chroma",
    title="Chroma",
    groups=(
        *blocks(double_stream({}, ff=("net.0.proj", "net.2"), mlp=(4, 4), modulated=False), single_stream(None)),
        *ENDS,
        *inside_all("distilled_guidance_layer", _GUIDANCE),
    ),
    depths={"double_blocks": 19, "single_blocks": 38},
    widths=(3072,),
)
