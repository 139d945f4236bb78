"""The block that HunyuanVideo, FramePack and FLUX share, under the names that differ.

Two streams (image and text) attend to each other, then one stream goes on. ComfyUI and the
original code fuse q, k, v (and in single blocks the MLP's input) into one weight; diffusers
keeps them apart.
"""

from __future__ import annotations

from .table import Group, group

__all__ = ["COMFYUI_BLOCKS", "COMFYUI_NORMS", "DIFFUSERS_QKV", "double_stream", "single_stream"]

COMFYUI_BLOCKS = ("double_blocks", "single_blocks")
"""See `TrainedFamily.comfyui_blocks`."""

COMFYUI_NORMS = ("img_norm1", "img_norm2", "txt_norm1", "txt_norm2", "pre_norm")
"""See `TrainedFamily.comfyui_norms`."""

DIFFUSERS_QKV = {
    "img": "attn.to_q attn.to_k attn.to_v",
    "txt": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
}
_DIFFUSERS = {
    "img": {"mod": "norm1.linear", "proj": "attn.to_out.0", "ff": "ff"},
    "txt": {"mod": "norm1_context.linear", "proj": "attn.to_add_out", "ff": "ff_context"},
}


def double_stream(
    names: dict[str, str], *, ff: tuple[str, str], mlp: tuple[int, int], modulated: bool = True
) -> tuple[Group, ...]:
    """A double block's groups.

    Args:
        names: Musubi's name of `mod`, `qkv`, `proj`, `mlp_in`, `mlp_out`, with `{s}` for img or
            txt; `qkv` may be three. A name that is missing is ComfyUI's own.
        ff: diffusers' names of the MLP's two layers below `ff` and `ff_context`.
        mlp: rows of the MLP's first layer and columns of its second, in widths of the model.
        modulated: whether each block has a modulation of its own.
    """
    groups: list[Group] = []
    for s, theirs in _DIFFUSERS.items():
        comfyui = {
            "mod": f"{s}_mod.lin",
            "qkv": f"{s}_attn.qkv",
            "proj": f"{s}_attn.proj",
            "mlp_in": f"{s}_mlp.0",
            "mlp_out": f"{s}_mlp.2",
        }
        musubi = {part: names[part].format(s=s) if part in names else name for part, name in comfyui.items()}
        diffusers = {
            "mod": theirs["mod"],
            "qkv": DIFFUSERS_QKV[s],
            "proj": theirs["proj"],
            "mlp_in": f"{theirs['ff']}.{ff[0]}",
            "mlp_out": f"{theirs['ff']}.{ff[1]}",
        }
        shapes = {"mod": (6, 1), "qkv": (3, 1), "proj": (1, 1), "mlp_in": (mlp[0], 1), "mlp_out": (1, mlp[1])}
        groups += (
            group(
                musubi[part],
                comfyui[part],
                diffusers[part],
                heights=(1, 1, 1) if part == "qkv" else (1,),
                shape=shapes[part],
            )
            for part in comfyui
            if modulated or part != "mod"
        )
    return tuple(groups)


def single_stream(modulation: str | None) -> tuple[Group, ...]:
    """A single block's groups for an MLP four times as wide as the model.

    Args:
        modulation: Musubi's name of the modulation's linear layer; None: the block has none of its own.
    """
    groups = (
        group(
            "linear1",
            "linear1",
            "attn.to_q attn.to_k attn.to_v proj_mlp",
            heights=(1, 1, 1, 4),
            shape=(7, 1),
        ),
        group("linear2", "linear2", "proj_out", shape=(1, 5)),
    )
    return groups if modulation is None else (*groups, group(modulation, "modulation.lin", "norm.linear", shape=(3, 1)))
