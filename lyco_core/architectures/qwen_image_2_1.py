"""Qwen-Image 2.1: one stream, and one modulation for all blocks. ComfyUI fuses the MLP's gate and input."""

from .table import Architecture, group, inside_all, same

__all__ = ["QWEN_IMAGE_2_1"]

_GATED = "img_mlp.gate_layer img_mlp.proj"
_BLOCK = (
    *same("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", shape=(1, 1)),
    group(_GATED, "img_mlp.gate_up", _GATED, heights=(1, 1), shape=(6, 1)),
    *same("img_mlp.out", shape=(1, 3)),
)

QWEN_IMAGE_2_1 = Architecture(
    id="qwen_image_2_1",
    title="Qwen-Image 2.1",
    groups=(
        *inside_all("transformer_blocks.{n}", _BLOCK),
        *same("time_text_embed.timestep_embedder.linear_1", inputs=(256,)),
        *same(
            "time_text_embed.timestep_embedder.linear_2",
            "txt_in.in_layer",
            "txt_in.out_layer",
            "norm_out.linear",
            shape=(1, 1),
        ),
        *same("modulation.1", shape=(4, 1)),
        *same("img_in", inputs=(64,)),
        *same("proj_out"),
    ),
    depths={"transformer_blocks": 32},
    widths=(4096,),
)
