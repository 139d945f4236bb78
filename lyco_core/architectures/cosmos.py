"""Cosmos 1.0 (text and video to world): each block is three, and its number stands in the middle of a word."""

from .table import Architecture, Group, renamed

__all__ = ["COSMOS_1"]

_DEPTH = 36


def _block(n: int) -> tuple[Group, ...]:
    ours, theirs = f"blocks.block{n}.blocks", f"transformer_blocks.{n}"
    layers = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    attention = {
        (i, name): {f"{ours}.{i}.block.attn.to_{name}.0": f"{theirs}.attn{i + 1}.{layer}"}
        for i in range(2)
        for name, layer in layers.items()
    }
    return (
        *(
            g
            for (i, name), names in attention.items()
            for g in (renamed(names, inputs=(1024,)) if i and name in "kv" else renamed(names, shape=(1, 1)))
        ),
        *renamed({f"{ours}.2.block.layer1": f"{theirs}.ff.net.0.proj"}, shape=(4, 1)),
        *renamed({f"{ours}.2.block.layer2": f"{theirs}.ff.net.2"}, shape=(1, 4)),
        *renamed({f"{ours}.{i}.adaLN_modulation.1": f"{theirs}.norm{i + 1}.linear_1" for i in range(3)}),
        *renamed({f"{ours}.{i}.adaLN_modulation.2": f"{theirs}.norm{i + 1}.linear_2" for i in range(3)}, inputs=(256,)),
    )


COSMOS_1 = Architecture(
    id="cosmos_1",
    title="Cosmos 1.0",
    groups=(
        *(g for n in range(_DEPTH) for g in _block(n)),
        *renamed({"x_embedder.proj.1": "patch_embed.proj"}),
        *renamed({"t_embedder.1.linear_1": "time_embed.t_embedder.linear_1"}, shape=(1, 1)),
        *renamed({"t_embedder.1.linear_2": "time_embed.t_embedder.linear_2"}, shape=(3, 1)),
        *renamed({"final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear_1"}),
        *renamed({"final_layer.adaLN_modulation.2": "norm_out.linear_2"}, inputs=(256,)),
    ),
    depths={},
    widths=(4096, 5120),
)
