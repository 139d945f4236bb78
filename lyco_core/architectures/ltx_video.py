"""LTX-Video: diffusers' names in every layout, but for what leads into the blocks."""

from .table import Architecture, inside_all, renamed, same

__all__ = ["LTX_VIDEO"]

_BLOCK = (
    *same(
        *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
        shape=(1, 1),
    ),
    *same("ff.net.0.proj", shape=(4, 1)),
    *same("ff.net.2", shape=(1, 4)),
)

LTX_VIDEO = Architecture(
    id="ltx_video",
    title="LTX-Video",
    groups=(
        *inside_all("transformer_blocks.{n}", _BLOCK),
        *renamed(
            {
                "patchify_proj": "proj_in",
                "adaln_single.emb.timestep_embedder.linear_1": "time_embed.emb.timestep_embedder.linear_1",
                "adaln_single.emb.timestep_embedder.linear_2": "time_embed.emb.timestep_embedder.linear_2",
                "adaln_single.linear": "time_embed.linear",
            }
        ),
        *same("caption_projection.linear_1", "caption_projection.linear_2", "proj_out"),
    ),
    depths={"transformer_blocks": 48},
    widths=(2048, 4096),
)
