"""FLUX.3 (klein): a stream each for the image, what it is made after, and the text; then all in one."""

from __future__ import annotations

from .table import Architecture, inside, renamed

__all__ = ["FLUX3"]

_IMAGES = ("image", "image_cond")
_BLOCK = (
    *renamed(
        {"q_proj": "attn.to_q", "k_proj": "attn.to_k", "v_proj": "attn.to_v", "attn_out": "attn.to_out.0"},
        shape=(1, 1),
    ),
    *renamed({"mlp_in": "ff.linear_in"}, shape=(6, 1)),
    *renamed({"mlp_out": "ff.linear_out"}, shape=(1, 3)),
)
_STREAMS = {
    **{f"content_mode_blocks.{image}.{{n}}": f"mode_blocks.{image}.{{n}}" for image in _IMAGES},
    "txt_mode_blocks.{n}": "txt_mode_blocks.{n}",
    "single_blocks.{n}": "single_transformer_blocks.{n}",
}

FLUX3 = Architecture(
    id="flux3",
    title="FLUX.3",
    groups=(
        *(g for ours, theirs in _STREAMS.items() for g in inside(ours, ours, theirs, _BLOCK)),
        *renamed(
            {
                f"{stage}_stream_modulations.{stream}.lin": f"{stage}_stream_modulations.{stream}.linear"
                for stage in ("early", "single")
                for stream in (*_IMAGES, "txt")
            },
            shape=(3, 1),
        ),
        *renamed({f"emb_in.{image}": f"x_embedders.{image}" for image in _IMAGES}),
        *renamed({"txt_in": "context_embedder", "final_layer.image.linear": "proj_out"}),
        *renamed(
            {
                "time_in.in_layer": "timestep_embedder.linear_1",
                "ref_time_in.in_layer": "target_timestep_embedder.linear_1",
            },
            inputs=(256,),
        ),
        *renamed(
            {
                "time_in.out_layer": "timestep_embedder.linear_2",
                "ref_time_in.out_layer": "target_timestep_embedder.linear_2",
            },
            shape=(1, 1),
        ),
        # diffusers keeps its scale above its shift.
        *renamed({"final_layer.image.adaLN_modulation.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
    ),
    depths={
        **{f"content_mode_blocks.{image}": 5 for image in _IMAGES},
        "txt_mode_blocks": 5,
        "single_blocks": 28,
    },
    widths=(3072,),
)
