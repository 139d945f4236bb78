"""HiDream-I1: one set of names, diffusers' own, in every layout."""

from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["HIDREAM"]

_EXPERTS, _CAPTIONS = 4, 49

_ATTENTION = ("to_q", "to_k", "to_v", "to_out")
_SINGLE = (
    *same(*(f"attn1.{name}" for name in _ATTENTION), shape=(1, 1)),
    *same(
        *(
            f"ff_i.{expert}.{name}"
            for expert in ("shared_experts", *(f"experts.{n}" for n in range(_EXPERTS)))
            for name in ("w1", "w2", "w3")
        ),
        "ff_i.gate",
    ),
)
_DOUBLE = (
    *_SINGLE,
    *same(*(f"attn1.{name}_t" for name in _ATTENTION), shape=(1, 1)),
    *same("ff_t.w1", "ff_t.w2", "ff_t.w3"),
    *same("adaLN_modulation.1", shape=(12, 1)),
)

HIDREAM = Architecture(
    id="hidream",
    title="HiDream-I1",
    groups=(
        *inside_all("double_stream_blocks.{n}.block", _DOUBLE),
        *inside_all("single_stream_blocks.{n}.block", (*_SINGLE, *same("adaLN_modulation.1", shape=(6, 1)))),
        *same(
            "t_embedder.timestep_embedder.linear_1",
            "t_embedder.timestep_embedder.linear_2",
            "p_embedder.pooled_embedder.linear_1",
            "p_embedder.pooled_embedder.linear_2",
            "x_embedder.proj",
            "final_layer.linear",
            "final_layer.adaLN_modulation.1",
            *(f"caption_projection.{n}.linear" for n in range(_CAPTIONS)),
        ),
    ),
    depths={"double_stream_blocks": 16, "single_stream_blocks": 32},
    widths=(2560,),
    training=trained_here(
        MusubiNames("hidream"),
        "double_stream_blocks single_stream_blocks",
        "HIDREAM",
        excludes=(r".*adaLN_modulation.*", r".*ff_i\.gate"),
        shift=3.0,
    ),
)
