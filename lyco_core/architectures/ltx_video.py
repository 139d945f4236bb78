"""LTX-Video, and LTX-2 and 2.3, which have a narrower stream of sound beside the same blocks.

Every layout has diffusers' names, but for what leads into the blocks.
"""

from fractions import Fraction

from .table import Architecture, Group, Shape, inside, inside_all, renamed, same
from .training import MusubiNames, trained_here

__all__ = ["LTX_2", "LTX_VIDEO"]


def _attention(name: str, q: Shape, kv: Shape, out: Shape) -> tuple[Group, ...]:
    """An attention's groups, by the shapes of its weights."""
    return (
        *same(f"{name}.to_q", shape=q),
        *same(f"{name}.to_k", f"{name}.to_v", shape=kv),
        *same(f"{name}.to_out.0", shape=out),
    )


def _feed_forward(name: str, width: int | Fraction) -> tuple[Group, ...]:
    return (*same(f"{name}.net.0.proj", shape=(4 * width, width)), *same(f"{name}.net.2", shape=(width, 4 * width)))


_BLOCK = (
    *_attention("attn1", (1, 1), (1, 1), (1, 1)),
    *_attention("attn2", (1, 1), (1, 1), (1, 1)),
    *_feed_forward("ff", 1),
)


def _modulation(ours: str, theirs: str, width: int | Fraction = 1) -> tuple[Group, ...]:
    """What embeds the time: ComfyUI's name of it, and diffusers'; and its stream's width, in widths of the model."""
    embedder = "emb.timestep_embedder"
    return (
        *renamed({f"{ours}.{embedder}.linear_1": f"{theirs}.{embedder}.linear_1"}, inputs=(256,)),
        *renamed({f"{ours}.{embedder}.linear_2": f"{theirs}.{embedder}.linear_2"}, shape=(width, width)),
        *renamed({f"{ours}.linear": f"{theirs}.linear"}),
    )


_SHARED = (
    *inside_all("transformer_blocks.{n}", _BLOCK),
    *renamed({"patchify_proj": "proj_in"}, inputs=(128,)),
    *_modulation("adaln_single", "time_embed"),
    *same("caption_projection.linear_1", "proj_out"),
    *same("caption_projection.linear_2", shape=(1, 1)),
)

LTX_VIDEO = Architecture(
    id="ltx_video",
    title="LTX-Video",
    groups=_SHARED,
    depths={"transformer_blocks": 48},
    widths=(2048, 4096),
    sizes={2048: {"transformer_blocks": 28}, 4096: {"transformer_blocks": 48}},
    training=trained_here(
        MusubiNames("ltx_video"), "transformer_blocks", "LTXV", shift=7.77, norms=("attn1", "attn2"), steps=(32, 8)
    ),
)

_SOUND = Fraction(1, 2)
_SOUND_BLOCK = (
    *_attention("audio_attn1", (_SOUND, _SOUND), (_SOUND, _SOUND), (_SOUND, _SOUND)),
    *_attention("audio_attn2", (_SOUND, _SOUND), (_SOUND, _SOUND), (_SOUND, _SOUND)),
    *_attention("audio_to_video_attn", (_SOUND, 1), (_SOUND, _SOUND), (1, _SOUND)),
    *_attention("video_to_audio_attn", (_SOUND, _SOUND), (_SOUND, 1), (_SOUND, _SOUND)),
    *_feed_forward("audio_ff", _SOUND),
    # 2.3: a gate for each head, of what the attention's queries are made of.
    *same(*(f"{name}.to_gate_logits" for name in ("attn1", "attn2", "audio_to_video_attn"))),
    *same(*(f"{name}.to_gate_logits" for name in ("audio_attn1", "audio_attn2", "video_to_audio_attn"))),
)
_CONNECTOR = same(
    *(f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "to_gate_logits")), "ff.net.0.proj", "ff.net.2"
)


def _connector(trainers: str, comfyui: str) -> tuple[Group, ...]:
    """What the text goes through first; in diffusers it is a model of its own."""
    blocks = "transformer_1d_blocks.{n}"
    groups = inside(f"{trainers}.{blocks}", f"{comfyui}.{blocks}", "", _CONNECTOR)
    return tuple(Group(g.musubi, g.comfyui, None) for g in groups)


LTX_2 = Architecture(
    id="ltx_2",
    title="LTX-2",
    groups=(
        *_SHARED,
        *inside_all("transformer_blocks.{n}", _SOUND_BLOCK),
        # The trainer's wrapper calls the video's connector so.
        *_connector("embeddings_connector", "video_embeddings_connector"),
        *_connector("audio_embeddings_connector", "audio_embeddings_connector"),
        *renamed({"audio_patchify_proj": "audio_proj_in"}, inputs=(128,)),
        *_modulation("audio_adaln_single", "audio_time_embed", _SOUND),
        *_modulation("prompt_adaln_single", "prompt_adaln"),
        *_modulation("audio_prompt_adaln_single", "audio_prompt_adaln", _SOUND),
        *_modulation("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift"),
        *_modulation("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift", _SOUND),
        *_modulation("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate"),
        *_modulation("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate", _SOUND),
        *same("audio_caption_projection.linear_1", "audio_proj_out"),
        *same("audio_caption_projection.linear_2", shape=(_SOUND, _SOUND)),
    ),
    depths={"transformer_blocks": 48},
    widths=(4096,),
    training=trained_here(
        MusubiNames("ltx_2"),
        "transformer_blocks",
        "LTXV",
        excludes=(r".*(audio_|video_to_audio).*",),
        norms=("attn1", "attn2"),
        shift=7.77,
        steps=(32, 8),
    ),
)
