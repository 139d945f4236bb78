"""ACE-Step 1.0, whose names are the same in every layout, and 1.5, another model, with its XL."""

from fractions import Fraction

from .table import Architecture, Group, Shape, group, inside, inside_all, same
from .training import MusubiNames, trained_here

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
    training=trained_here(
        MusubiNames("ace_step"),
        "transformer_blocks",
        None,
        excludes=(r"lyric_encoder\..*", r".*cross_attn\.(add_[qkv]_proj|to_add_out)"),
        shift=3.0,
    ),
)


def _block_1_5(queries: Shape, keys: Shape, up: Shape) -> tuple[Group, ...]:
    """A block's groups, by the shapes of its weights; what leads back to the model's width has those turned round."""
    attention = {"q_proj": ("to_q", queries), "k_proj": ("to_k", keys), "v_proj": ("to_v", keys)}
    attention["o_proj"] = "to_out.0", (queries[1], queries[0])
    return (
        *(
            group(f"{name}.{ours}", f"{name}.{ours}", f"{name}.{theirs}", shape=shape)
            for name in ("self_attn", "cross_attn")
            for ours, (theirs, shape) in attention.items()
        ),
        *same("mlp.gate_proj", "mlp.up_proj", shape=up),
        *same("mlp.down_proj", shape=(up[1], up[0])),
    )


_BLOCK_1_5 = _block_1_5((1, 1), (Fraction(1, 2), 1), (3, 1))
_XL_BLOCK = _block_1_5((Fraction(8, 5), 1), (Fraction(2, 5), 1), (Fraction(19, 5), 1))
_HELD: dict[str, tuple[Shape | None, tuple[int, ...]]] = {
    "linear_1": (None, (256,)),
    "linear_2": ((1, 1), ()),
    "time_proj": ((6, 1), ()),
}
_TIME = tuple(
    group(f"{name}.{layer}", f"decoder.{name}.{layer}", f"{name}.{layer}", shape=shape, inputs=inputs)
    for name in ("time_embed", "time_embed_r")
    for layer, (shape, inputs) in _HELD.items()
)

# The names that trainers write, its own code's, are below ComfyUI's `decoder`; what is beside it is not trained.
ACE_STEP_1_5 = Architecture(
    id="ace_step_1_5",
    title="ACE-Step 1.5",
    groups=(
        *(
            g
            for block in (_BLOCK_1_5, _XL_BLOCK)
            for g in inside("layers.{n}", "decoder.layers.{n}", "layers.{n}", block)
        ),
        *_TIME,
        group("condition_embedder", "decoder.condition_embedder", "condition_embedder", inputs=(2048,)),
        group("proj_in.1", "decoder.proj_in.1", "proj_in_conv"),
        group("proj_out.1", "decoder.proj_out.1", "proj_out_conv"),
    ),
    depths={"layers": 32},
    widths=(2048, 2560),
    sizes={2048: {"layers": 24}, 2560: {"layers": 32}},
    training=trained_here(MusubiNames("ace_step_1_5"), "decoder.layers", None, shift=3.0),
)
