"""ACE-Step 1.0: one set of names in every layout."""

from .table import Architecture, inside_all, same

__all__ = ["ACE_STEP"]

_BLOCK = (
    *same(
        *(
            f"{attention}.{name}"
            for attention in ("attn", "cross_attn")
            for name in ("to_q", "to_k", "to_v", "to_out.0")
        ),
        *(f"cross_attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
        shape=(1, 1),
    ),
    *same("ff.inverted_conv.conv", "ff.depth_conv.conv", "ff.point_conv.conv"),
)
_LYRICS = same(
    *(f"self_attn.linear_{name}" for name in ("q", "k", "v", "out", "pos")),
    "feed_forward.w_1",
    "feed_forward.w_2",
)

ACE_STEP = Architecture(
    id="ace_step",
    title="ACE-Step",
    groups=(
        *inside_all("transformer_blocks.{n}", _BLOCK),
        *inside_all("lyric_encoder.encoders.{n}", _LYRICS),
        *same(
            "timestep_embedder.linear_1",
            "timestep_embedder.linear_2",
            "t_block.1",
            "speaker_embedder",
            "genre_embedder",
            "lyric_encoder.embed.out.0",
            "lyric_proj",
            *(f"projectors.{n}.{layer}" for n in range(2) for layer in (0, 2, 4)),
            "proj_in.early_conv_layers.0",
            "proj_in.early_conv_layers.2",
            "final_layer.linear",
        ),
    ),
    depths={"transformer_blocks": 24, "lyric_encoder.encoders": 6},
    widths=(2560,),
)
