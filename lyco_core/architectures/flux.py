"""FLUX.1 (dev, schnell, Kontext) and FLUX.2 (dev, klein). Musubi and ComfyUI share every name."""

from __future__ import annotations

from .dual_stream import COMFYUI_BLOCKS, COMFYUI_NORMS, double_stream, single_stream
from .table import Architecture, Group, group, inside, renamed
from .training import ImageInput, MusubiNames, TrainedFamily

__all__ = ["ENDS", "FLUX1", "FLUX2", "blocks"]

_EXCLUDES = (r".*(img_mod\.lin|txt_mod\.lin|modulation\.lin).*", r".*(norm).*")


def blocks(double: tuple[Group, ...], single: tuple[Group, ...]) -> tuple[Group, ...]:
    """A double and a single block's groups, in their blocks."""
    return (
        *inside("double_blocks.{n}", "double_blocks.{n}", "transformer_blocks.{n}", double),
        *inside("single_blocks.{n}", "single_blocks.{n}", "single_transformer_blocks.{n}", single),
    )


ENDS = renamed({"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"})

# diffusers keeps the final modulation's scale above its shift, the others the shift above the scale.
_SHARED = (
    *ENDS,
    *renamed({"final_layer.adaLN_modulation.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
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
    training=TrainedFamily(
        excludes=_EXCLUDES,
        sampling="flux_shift",
        shift=1.0,
        frames_a_second=None,
        names=MusubiNames("flux_kontext", "Flux.1-dev", "https://github.com/black-forest-labs/flux", "lora_flux"),
        image_input=ImageInput(reads="img_in", writes="final_layer.linear"),
        clip_type="FLUX",
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
    ),
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
    diffusers_fuses=True,
    depths={"double_blocks": 8, "single_blocks": 48},
    widths=(3072, 4096, 6144),
    training=TrainedFamily(
        excludes=_EXCLUDES,
        sampling="flux2_shift",
        shift=1.0,
        frames_a_second=None,
        names=MusubiNames(
            "flux_2_dev",
            "Flux.2-dev",
            "https://github.com/black-forest-labs/flux2",
            "lora_flux_2",
            by_depth={
                ("single_blocks", 20): ("flux_2_klein_4b", "Flux.2-klein-4b"),
                ("single_blocks", 24): ("flux_2_klein_9b", "Flux.2-klein-9b"),
            },
        ),
        image_input=None,
        clip_type="FLUX2",
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
    ),
)
