"""Mage-Flow: Qwen-Image's names and width, a fifth of its blocks."""

from .qwen_image import BLOCK, ENDS
from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["MAGE_FLOW"]

MAGE_FLOW = Architecture(
    id="mage_flow",
    title="Mage-Flow",
    groups=(
        *inside_all("transformer_blocks.{n}", BLOCK),
        *ENDS,
        *same("img_in", inputs=(128,)),
        *same("txt_in", inputs=(2560,)),
        *same("proj_out", outputs=(128,)),
    ),
    depths={"transformer_blocks": 12},
    widths=(3072,),
    twins=("qwen_image",),
    training=trained_here(MusubiNames("mage_flow"), "transformer_blocks", "MAGE", excludes=(r".*_mod\..*",), shift=6.0),
)
