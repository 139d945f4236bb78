"""LTX-Video, and LTX-2, which has a narrower stream of sound beside the same blocks.

Every layout has diffusers' names, but for what leads into the blocks.
"""

from .table import Architecture, Group, inside_all, renamed, same

__all__ = ["LTX_2", "LTX_VIDEO"]

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_BLOCK = (
    *same(*(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in _ATTENTION), shape=(1, 1)),
    *same("ff.net.0.proj", shape=(4, 1)),
    *same("ff.net.2", shape=(1, 4)),
)


def _modulation(ours: str, theirs: str) -> tuple[Group, ...]:
    """What embeds the time: ComfyUI's name of it, and diffusers'."""
    layers = ("emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2", "linear")
    return renamed({f"{ours}.{layer}": f"{theirs}.{layer}" for layer in layers})


_SHARED = (
    *inside_all("transformer_blocks.{n}", _BLOCK),
    *renamed({"patchify_proj": "proj_in"}),
    *_modulation("adaln_single", "time_embed"),
    *same("caption_projection.linear_1", "caption_projection.linear_2", "proj_out"),
)

LTX_VIDEO = Architecture(
    id="ltx_video",
    title="LTX-Video",
    groups=_SHARED,
    depths={"transformer_blocks": 48},
    widths=(2048, 4096),
    sizes={2048: {"transformer_blocks": 28}, 4096: {"transformer_blocks": 48}},
)

_SOUND = same(
    *(
        f"{attention}.{name}"
        for attention in ("audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
        for name in _ATTENTION
    ),
    "audio_ff.net.0.proj",
    "audio_ff.net.2",
)
# In diffusers it is a model of its own.
_CONNECTOR = renamed(dict.fromkeys((*(f"attn1.{name}" for name in _ATTENTION), "ff.net.0.proj", "ff.net.2")))

LTX_2 = Architecture(
    id="ltx_2",
    title="LTX-2",
    groups=(
        *_SHARED,
        *inside_all("transformer_blocks.{n}", _SOUND),
        *inside_all("audio_embeddings_connector.transformer_1d_blocks.{n}", _CONNECTOR),
        *inside_all("video_embeddings_connector.transformer_1d_blocks.{n}", _CONNECTOR),
        *renamed({"audio_patchify_proj": "audio_proj_in"}),
        *_modulation("audio_adaln_single", "audio_time_embed"),
        *_modulation("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift"),
        *_modulation("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift"),
        *_modulation("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate"),
        *_modulation("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate"),
        *same("audio_caption_projection.linear_1", "audio_caption_projection.linear_2", "audio_proj_out"),
    ),
    depths={"transformer_blocks": 48},
    widths=(4096,),
)
