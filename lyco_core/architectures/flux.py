"""FLUX.1 (dev, schnell, Kontext) and FLUX.2 (dev, klein). Musubi and ComfyUI share every name."""

from __future__ import annotations

import dataclasses

from .dual_stream import COMFYUI_BLOCKS, COMFYUI_NORMS, double_stream, single_stream
from .group import Alias
from .table import Architecture, Group, group, inside, renamed, with_aliases
from .training import ImageInput, MusubiNames, TrainedFamily

__all__ = ["BLOCKS", "ENDS", "FLUX1", "FLUX2", "SHARED", "blocks"]

_EXCLUDES = (r".*(img_mod\.lin|txt_mod\.lin|modulation\.lin).*", r".*(norm).*")


def blocks(double: tuple[Group, ...], single: tuple[Group, ...]) -> tuple[Group, ...]:
    """A double and a single block's groups, in their blocks."""
    return (
        *inside("double_blocks.{n}", "double_blocks.{n}", "transformer_blocks.{n}", double),
        *inside("single_blocks.{n}", "single_blocks.{n}", "single_transformer_blocks.{n}", single),
    )


BLOCKS = blocks(double_stream({}, ff=("net.0.proj", "net.2"), mlp=(4, 4)), single_stream("modulation.lin"))
"""FLUX.1's."""

ENDS = renamed({"img_in": "x_embedder", "final_layer.linear": "proj_out"})

# diffusers keeps the final modulation's scale above its shift, the others the shift above the scale.
SHARED = (
    *ENDS,
    *renamed({"final_layer.adaLN_modulation.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
)

# What DiffSynth calls the modules of FLUX.1: its own names, for rows in ComfyUI's order.
_DIFFSYNTH = {
    **{
        f"double_blocks.{{n}}.{stream}_{ours}": f"blocks.{{n}}.{theirs.format(s=letter)}"
        for stream, letter in {"img": "a", "txt": "b"}.items()
        for ours, theirs in {
            "attn.qkv": "attn.{s}_to_qkv",
            "attn.proj": "attn.{s}_to_out",
            "mlp.0": "ff_{s}.0",
            "mlp.2": "ff_{s}.2",
            "mod.lin": "norm1_{s}.linear",
        }.items()
    },
    "single_blocks.{n}.linear1": "single_blocks.{n}.to_qkv_mlp",
    "single_blocks.{n}.linear2": "single_blocks.{n}.proj_out",
    "single_blocks.{n}.modulation.lin": "single_blocks.{n}.norm.linear",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "time_in.in_layer": "time_embedder.timestep_embedder.0",
    "time_in.out_layer": "time_embedder.timestep_embedder.2",
    "guidance_in.in_layer": "guidance_embedder.timestep_embedder.0",
    "guidance_in.out_layer": "guidance_embedder.timestep_embedder.2",
    "vector_in.in_layer": "pooled_text_embedder.0",
    "vector_in.out_layer": "pooled_text_embedder.2",
    "final_layer.linear": "final_proj_out",
    "final_layer.adaLN_modulation.1": "final_norm_out.linear",
}


def _with_parts(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """`groups` whose parts have names of their own, by which sd-scripts' OFT turns q, k, v and the MLP's rows apart."""

    def put(g: Group) -> Group:
        fused = (g.musubi or ("",))[0]
        parts = (Alias(f"{fused}.{n}", "musubi", (n, n + 1)) for n in range(len(g.heights)))
        return dataclasses.replace(g, aliases=(*g.aliases, *parts)) if len(g.heights) > 1 else g

    return tuple(put(g) for g in groups)


FLUX1 = Architecture(
    id="flux1",
    title="FLUX.1",
    groups=with_aliases(
        (
            *_with_parts(BLOCKS),
            *SHARED,
            *renamed({"txt_in": "context_embedder"}, inputs=(4096,)),
            *renamed(
                {
                    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
                    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
                },
                inputs=(256,),
            ),
            *renamed({"vector_in.in_layer": "time_text_embed.text_embedder.linear_1"}, inputs=(768,)),
            *renamed(
                {
                    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
                    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
                    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
                },
                shape=(1, 1),
            ),
        ),
        "comfyui",
        _DIFFSYNTH,
    ),
    depths={"double_blocks": 19, "single_blocks": 38},
    widths=(3072,),
    training=TrainedFamily(
        excludes=_EXCLUDES,
        sampling="flux_shift",
        shift=1.0,
        frames_a_second=None,
        steps=(16, 4),
        names=MusubiNames("flux_kontext", "Flux.1-dev", "https://github.com/black-forest-labs/flux", "lora_flux"),
        image_input=ImageInput(reads="img_in", writes="final_layer.linear"),
        clip_type="FLUX",
        learns_data=False,
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
        outside=(),
        by_musubi=True,
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
        *SHARED,
        *renamed(
            {
                "txt_in": "context_embedder",
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
    sizes={
        3072: {"double_blocks": 5, "single_blocks": 20},
        4096: {"double_blocks": 8, "single_blocks": 24},
        6144: {"double_blocks": 8, "single_blocks": 48},
    },
    training=TrainedFamily(
        excludes=_EXCLUDES,
        sampling="flux2_shift",
        shift=1.0,
        frames_a_second=None,
        steps=(16, 4),
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
        learns_data=False,
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
        outside=(),
        by_musubi=True,
    ),
)
