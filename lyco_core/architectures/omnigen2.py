"""OmniGen2: one set of names in every layout, its blocks' the same as Lumina-Image 2.0's in diffusers."""

from fractions import Fraction

from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["OMNIGEN2"]

_MLP = Fraction(256, 63)
_BLOCK = (
    *same("attn.to_q", "attn.to_out.0", shape=(1, 1)),
    *same("attn.to_k", "attn.to_v", shape=(Fraction(1, 3), 1)),
    *same("feed_forward.linear_1", "feed_forward.linear_3", shape=(_MLP, 1)),
    *same("feed_forward.linear_2", shape=(1, _MLP)),
)
_MODULATION = same("norm1.linear")

OMNIGEN2 = Architecture(
    id="omnigen2",
    title="OmniGen2",
    groups=(
        *(
            g
            for name in ("layers.{n}", "noise_refiner.{n}", "ref_image_refiner.{n}")
            for g in inside_all(name, _BLOCK + _MODULATION)
        ),
        *inside_all("context_refiner.{n}", _BLOCK),
        *same(
            "x_embedder",
            "ref_image_patch_embedder",
            "time_caption_embed.timestep_embedder.linear_1",
            "time_caption_embed.timestep_embedder.linear_2",
            "time_caption_embed.caption_embedder.1",
            "norm_out.linear_1",
            "norm_out.linear_2",
        ),
    ),
    depths={"layers": 32, "noise_refiner": 2, "ref_image_refiner": 2, "context_refiner": 2},
    widths=(2520,),
    training=trained_here(
        MusubiNames("omnigen2"),
        "context_refiner ref_image_refiner noise_refiner layers",
        "OMNIGEN2",
        excludes=(r".*norm1\.linear",),
        shift=2.6,
    ),
)
