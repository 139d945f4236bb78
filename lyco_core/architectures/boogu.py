"""Boogu: OmniGen2's blocks after blocks of two streams. One set of names in every layout."""

from fractions import Fraction

from .table import Architecture, Group, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["BOOGU"]

_MLP = Fraction(424, 105)
_KEYS = Fraction(1, 4)


def _attention(queries: str, keys: str, values: str, *outs: str) -> tuple[Group, ...]:
    return (*same(queries, *outs, shape=(1, 1)), *same(keys, values, shape=(_KEYS, 1)))


def _mlp(name: str) -> tuple[Group, ...]:
    return (
        *same(f"{name}.linear_1", f"{name}.linear_3", shape=(_MLP, 1)),
        *same(f"{name}.linear_2", shape=(1, _MLP)),
    )


_BLOCK = (*_attention("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"), *_mlp("feed_forward"))
_MODULATION = same("norm1.linear", inputs=(1024,))
_JOINT = "img_instruct_attn.processor"
_DOUBLE = (
    *_attention(f"{_JOINT}.img_to_q", f"{_JOINT}.img_to_k", f"{_JOINT}.img_to_v", f"{_JOINT}.img_out"),
    *_attention(
        f"{_JOINT}.instruct_to_q", f"{_JOINT}.instruct_to_k", f"{_JOINT}.instruct_to_v", f"{_JOINT}.instruct_out"
    ),
    *same("img_instruct_attn.to_out.0", shape=(1, 1)),
    *_attention("img_self_attn.to_q", "img_self_attn.to_k", "img_self_attn.to_v", "img_self_attn.to_out.0"),
    *_mlp("img_feed_forward"),
    *_mlp("instruct_feed_forward"),
    *same(*(f"img_norm{n}.linear" for n in (1, 2, 3)), *(f"instruct_norm{n}.linear" for n in (1, 2)), inputs=(1024,)),
)

BOOGU = Architecture(
    id="boogu",
    title="Boogu",
    groups=(
        *inside_all("double_stream_layers.{n}", _DOUBLE),
        *(
            g
            for name in ("single_stream_layers.{n}", "noise_refiner.{n}", "ref_image_refiner.{n}")
            for g in inside_all(name, _BLOCK + _MODULATION)
        ),
        *inside_all("context_refiner.{n}", _BLOCK),
        *same("x_embedder", "ref_image_patch_embedder", inputs=(64,)),
        *same("time_caption_embed.timestep_embedder.linear_1", inputs=(256,)),
        *same("time_caption_embed.timestep_embedder.linear_2", "norm_out.linear_1", inputs=(1024,)),
        *same("time_caption_embed.caption_embedder.1", inputs=(4096,)),
        *same("norm_out.linear_2", outputs=(64,)),
    ),
    depths={
        "double_stream_layers": 8,
        "single_stream_layers": 32,
        "noise_refiner": 2,
        "ref_image_refiner": 2,
        "context_refiner": 2,
    },
    widths=(3360,),
    training=trained_here(
        MusubiNames("boogu"),
        "context_refiner ref_image_refiner noise_refiner double_stream_layers single_stream_layers",
        "BOOGU",
        excludes=(r".*norm[123]\.linear",),
        shift=3.16,
    ),
)
