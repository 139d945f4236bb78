"""PixArt-alpha and PixArt-sigma."""

from .table import Architecture, inside, renamed

__all__ = ["PIXART"]

_BLOCK = (
    *renamed({"attn.qkv": "attn1.to_q attn1.to_k attn1.to_v"}, shape=(3, 1)),
    *renamed({"cross_attn.kv_linear": "attn2.to_k attn2.to_v"}, shape=(2, 1)),
    *renamed(
        {
            "attn.proj": "attn1.to_out.0",
            "cross_attn.q_linear": "attn2.to_q",
            "cross_attn.proj": "attn2.to_out.0",
        },
        shape=(1, 1),
    ),
    *renamed({"mlp.fc1": "ff.net.0.proj"}, shape=(4, 1)),
    *renamed({"mlp.fc2": "ff.net.2"}, shape=(1, 4)),
)

_EMBEDDERS = {
    "t_embedder.mlp": "timestep_embedder",
    "csize_embedder.mlp": "resolution_embedder",
    "ar_embedder.mlp": "aspect_ratio_embedder",
}

PIXART = Architecture(
    id="pixart",
    title="PixArt",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
        *renamed(
            {
                f"{ours}.{2 * n}": f"adaln_single.emb.{theirs}.linear_{n + 1}"
                for ours, theirs in _EMBEDDERS.items()
                for n in range(2)
            }
        ),
        *renamed(
            {
                "t_block.1": "adaln_single.linear",
                "x_embedder.proj": "pos_embed.proj",
                "y_embedder.y_proj.fc1": "caption_projection.linear_1",
                "y_embedder.y_proj.fc2": "caption_projection.linear_2",
                "final_layer.linear": "proj_out",
            }
        ),
    ),
    depths={"blocks": 28},
    widths=(1152,),
)
