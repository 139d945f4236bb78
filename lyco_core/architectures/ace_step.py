"""ACE-Step 1.0, whose names are the same in every layout, and 1.5, another model."""

from .table import Architecture, group, inside, inside_all, same

__all__ = ["ACE_STEP", "ACE_STEP_1_5"]

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

_BLOCK_1_5 = (
    *(
        group(f"{attention}.{ours}", f"{attention}.{ours}", f"{attention}.{theirs}")
        for attention in ("self_attn", "cross_attn")
        for ours, theirs in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("o_proj", "to_out.0"))
    ),
    *same("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
_TIME = tuple(
    f"{name}.{layer}" for name in ("time_embed", "time_embed_r") for layer in ("linear_1", "linear_2", "time_proj")
)

# The names that trainers write, its own code's, are below ComfyUI's `decoder`; what is beside it is not trained.
ACE_STEP_1_5 = Architecture(
    id="ace_step_1_5",
    title="ACE-Step 1.5",
    groups=(
        *inside("layers.{n}", "decoder.layers.{n}", "layers.{n}", _BLOCK_1_5),
        *(group(name, f"decoder.{name}", name) for name in (*_TIME, "condition_embedder")),
        group("proj_in.1", "decoder.proj_in.1", "proj_in_conv"),
        group("proj_out.1", "decoder.proj_out.1", "proj_out_conv"),
    ),
    depths={"layers": 32},
)
