"""FLUX.1 (dev, schnell, Kontext) and FLUX.2 (dev, klein). Musubi and ComfyUI share every name."""

from __future__ import annotations

from .dual_stream import double_stream, single_stream
from .table import Architecture, Group, group, inside, renamed

__all__ = ["ENDS", "FLUX1", "FLUX2", "blocks"]

_TARGET_BLOCKS = ("DoubleStreamBlock", "SingleStreamBlock")
_DEFAULT_EXCLUDES = (r".*(img_mod\.lin|txt_mod\.lin|modulation\.lin).*", r".*(norm).*")


def blocks(double: tuple[Group, ...], single: tuple[Group, ...]) -> tuple[Group, ...]:
    """A double and a single block's groups, in their blocks."""
    return (
        *inside("double_blocks.{n}", "double_blocks.{n}", "transformer_blocks.{n}", double),
        *inside("single_blocks.{n}", "single_blocks.{n}", "single_transformer_blocks.{n}", single),
    )


ENDS = renamed({"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"})

# diffusers keeps the final modulation's scale above its shift, the others the shift above the
# scale: no renaming turns one into the other, so it has no name there.
_SHARED = (
    *ENDS,
    *renamed({"final_layer.adaLN_modulation.1": None}, shape=(2, 1)),
)

FLUX1 = Architecture(
    id="flux1",
    title="FLUX.1",
    groups=(
        *blocks(
            double_stream({}, ff=("net.0.proj", "net.2"), mlp=(4, 4)),
            single_stream("modulation.lin"),
        ),
        *_SHARED,
        *renamed(
            {
                "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
                "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
                "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
                "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
                "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
                "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
            }
        ),
    ),
    depths={"double_blocks": 19, "single_blocks": 38},
    widths=(3072,),
    target_blocks=_TARGET_BLOCKS,
    default_excludes=_DEFAULT_EXCLUDES,
)

# A gated MLP three times as wide as the model: its first layer has both halves' rows, and in
# single blocks diffusers leaves q, k, v and the MLP fused too. One modulation serves all blocks.
_FLUX2_DOUBLE = double_stream({}, ff=("linear_in", "linear_out"), mlp=(6, 3), modulated=False)
_FLUX2_SINGLE = (
    group("linear1", "linear1", "attn.to_qkv_mlp_proj", shape=(9, 1)),
    group("linear2", "linear2", "attn.to_out", shape=(1, 4)),
)

FLUX2 = Architecture(
    id="flux2",
    title="FLUX.2",
    groups=(
        *blocks(_FLUX2_DOUBLE, _FLUX2_SINGLE),
        *_SHARED,
        *renamed(
            {
                "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
                "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
                "single_stream_modulation.lin": "single_stream_modulation.linear",
                "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
                "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
                "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
                "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
            }
        ),
    ),
    depths={"double_blocks": 8, "single_blocks": 48},
    widths=(3072, 4096, 6144),
    target_blocks=_TARGET_BLOCKS,
    default_excludes=_DEFAULT_EXCLUDES,
)
