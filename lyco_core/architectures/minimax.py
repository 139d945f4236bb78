"""MiniMax-H3, a single stream of text, sound and video; and MiniMax Music 3."""

from fractions import Fraction

from .table import Architecture, Group, group, inside, renamed

__all__ = ["MINIMAX_H3", "MINIMAX_MUSIC_3"]

_INNER = Fraction(4, 3)  # 56 heads of 128 in 5376
_HIDDEN = Fraction(8, 3)


def _block() -> tuple[Group, ...]:
    return (
        *renamed({"attn.qkv_proj": "attn.to_q attn.to_k attn.to_v"}, shape=(3 * _INNER, 1)),
        *renamed({"attn.out_proj": "attn.to_out.0"}, shape=(1, _INNER)),
        # diffusers keeps the value above its gate, the others the gate above the value.
        *renamed({"mlp.fc1": "ff.net.0.proj"}, shape=(2 * _HIDDEN, 1), swapped=("diffusers",)),
        *renamed({"mlp.fc2": "ff.net.2"}, shape=(1, _HIDDEN)),
    )


MINIMAX_H3 = Architecture(
    id="minimax_h3",
    title="MiniMax-H3",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _block()),
        # They read the embedding of the time, or, in ComfyUI's smaller files, a few columns of a table instead.
        *renamed({"blocks.{n}.adaln_proj.linear": "transformer_blocks.{n}.adaln_proj.linear"}, outputs=(18 * 5376,)),
        *renamed({"final_layer.adaln_proj.linear": "norm_out.linear"}, outputs=(2 * 5376,)),
        *inside("token_refiner.blocks.{n}", "token_refiner.blocks.{n}", "token_refiner.refiner_blocks.{n}", _block()),
        *renamed({"video_patch_proj": "proj_in"}, inputs=(96,)),
        *renamed({"audio_patch_proj": "audio_proj_in"}, inputs=(32,)),
        *renamed({"condition_proj": "context_embedder"}, inputs=(5120,)),
        *renamed({"time_embedder.proj_in": "time_embedder.linear_1"}, inputs=(256,)),
        *renamed({"time_embedder.proj_out": "time_embedder.linear_2"}, shape=(Fraction(1, 2), 1)),
        *renamed({"final_layer.video_out": "proj_out"}, outputs=(96,), inputs=(5376,)),
        *renamed({"final_layer.audio_out": "audio_proj_out"}, outputs=(32,), inputs=(5376,)),
    ),
    depths={"blocks": 50, "token_refiner.blocks": 2},
    widths=(5376,),
    diffsynth_head=128,
)

_MUSIC = "diffusion_transformer.transformer"
_LAYER = f"{_MUSIC}.layers.{{n}}"

MINIMAX_MUSIC_3 = Architecture(
    id="minimax_music_3",
    title="MiniMax Music 3",
    groups=(
        *inside(
            _LAYER,
            _LAYER,
            "transformer_blocks.{n}",
            (
                *renamed({"self_attn.to_qkv": "attn.to_q attn.to_k attn.to_v"}, shape=(3, 1)),
                *renamed({"self_attn.to_out": "attn.to_out.0"}, shape=(1, 1)),
                *renamed({"ff.ff.0.proj": "ff_in"}, shape=(8, 1)),
                *renamed({"ff.ff.2": "ff_out"}, shape=(1, 4)),
            ),
        ),
        *renamed({f"{_MUSIC}.project_in": "proj_in"}, inputs=(2304,)),
        *renamed({f"{_MUSIC}.project_out": "proj_out"}, inputs=(2048,), outputs=(128,)),
        *renamed({"diffusion_transformer.to_timestep_embed.0": "time_embed.linear_1"}, inputs=(256,)),
        *renamed({"diffusion_transformer.to_timestep_embed.2": "time_embed.linear_2"}, shape=(1, 1)),
        *renamed({"diffusion_transformer.preprocess_conv": "preprocess_conv"}, inputs=(2304,)),
        *renamed({"diffusion_transformer.postprocess_conv": "postprocess_conv"}, inputs=(128,), outputs=(128,)),
        # In diffusers it is a model of its own.
        group("latent_conditioners.0", "latent_conditioners.0", None, outputs=(2048,)),
    ),
    depths={_MUSIC + ".layers": 36},
    widths=(2048,),
)
