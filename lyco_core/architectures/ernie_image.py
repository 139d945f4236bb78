"""ERNIE-Image: one set of names in every layout."""

from .table import Architecture, inside_all, same
from .training import MusubiNames, trained_here

__all__ = ["ERNIE_IMAGE"]

_BLOCK = (
    *same(*(f"self_attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")), shape=(1, 1)),
    *same("mlp.gate_proj", "mlp.up_proj", shape=(3, 1)),
    *same("mlp.linear_fc2", shape=(1, 3)),
)

ERNIE_IMAGE = Architecture(
    id="ernie_image",
    title="ERNIE-Image",
    groups=(
        *inside_all("layers.{n}", _BLOCK),
        *same(
            "x_embedder.proj",
            "text_proj",
            "time_embedding.linear_1",
            "time_embedding.linear_2",
            "adaLN_modulation.1",
            "final_norm.linear",
            "final_linear",
        ),
    ),
    depths={"layers": 36},
    widths=(4096,),
    training=trained_here(MusubiNames("ernie_image"), "layers", "FLUX2", shift=3.0),
)
