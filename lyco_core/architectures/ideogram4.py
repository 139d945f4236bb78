"""Ideogram 4. Musubi and ComfyUI share every name and fuse q, k and v; diffusers keeps them apart, as Z-Image does."""

from fractions import Fraction

from .table import Architecture, inside_all, renamed, same
from .training import MusubiNames, trained_here

__all__ = ["IDEOGRAM4"]

_MLP = Fraction(8, 3)
_BLOCK = (
    *renamed({"attention.qkv": "attention.to_q attention.to_k attention.to_v"}, shape=(3, 1)),
    *renamed({"attention.o": "attention.to_out.0"}, shape=(1, 1)),
    *same("feed_forward.w1", "feed_forward.w3", shape=(_MLP, 1)),
    *same("feed_forward.w2", shape=(1, _MLP)),
    *same("adaln_modulation", inputs=(512,)),
)

IDEOGRAM4 = Architecture(
    id="ideogram4",
    title="Ideogram 4",
    groups=(
        *inside_all("layers.{n}", _BLOCK),
        *same("input_proj", inputs=(128,)),
        *same("t_embedding.mlp_in", "t_embedding.mlp_out", shape=(1, 1)),
        *same("final_layer.adaln_modulation", inputs=(512,)),
        *same("llm_cond_proj", inputs=(53248,)),
        *same("adaln_proj", outputs=(512,)),
        *same("final_layer.linear", outputs=(128,)),
    ),
    depths={"layers": 34},
    widths=(4608,),
    training=trained_here(
        MusubiNames(
            "ideogram4", "Ideogram-4", "https://huggingface.co/Comfy-Org/Ideogram-4", "lora_ideogram4", (1024, 1024)
        ),
        "layers",
        "IDEOGRAM4",
        excludes=(r".*adaln_modulation.*",),
        sampling="ideogram4_shift",
        shift=1.0,
    ),
)
