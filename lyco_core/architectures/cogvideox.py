"""CogVideoX 1.0 and 1.5 (text to video, image to video), whose trainers write diffusers' names."""

from .table import Architecture, inside, renamed

__all__ = ["COGVIDEOX"]

_TIME = (512,)
"""The width of the embedding of the time."""

_BLOCK = (
    *renamed(
        {"q": "attn1.to_q", "k": "attn1.to_k", "v": "attn1.to_v", "attn_out": "attn1.to_out.0"},
        shape=(1, 1),
    ),
    *renamed({"ff_proj": "ff.net.0.proj"}, shape=(4, 1)),
    *renamed({"ff_out": "ff.net.2"}, shape=(1, 4)),
    *renamed({"norm1.linear": "norm1.linear", "norm2.linear": "norm2.linear"}, inputs=_TIME),
)

COGVIDEOX = Architecture(
    id="cogvideox",
    title="CogVideoX",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
        *renamed({"patch_embed.proj": "patch_embed.proj"}),
        *renamed({"proj_out": "proj_out"}, outputs=(64, 128)),
        *renamed({"patch_embed.text_proj": "patch_embed.text_proj"}, inputs=(4096,)),
        *renamed({"time_embedding_linear_1": "time_embedding.linear_1"}, outputs=_TIME),
        *renamed(
            {
                "time_embedding_linear_2": "time_embedding.linear_2",
                "ofs_embedding_linear_1": "ofs_embedding.linear_1",
                "ofs_embedding_linear_2": "ofs_embedding.linear_2",
                "norm_out.linear": "norm_out.linear",
            },
            inputs=_TIME,
        ),
    ),
    depths={"blocks": 42},
    widths=(1920, 3072),
)
