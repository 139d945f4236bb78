"""Kandinsky 5 (Lite, Pro and Image), whose names are the same in every layout."""

from .table import Architecture, Group, group, inside_all, same

__all__ = ["KANDINSKY5"]

_TIME = (512, 1024)
"""Widths of the embedding of the time, which the modulations read."""


def _block(modulation: str, *attentions: str) -> tuple[Group, ...]:
    layers = ("to_query", "to_key", "to_value", "out_layer")
    return (
        *same(*(f"{attention}.{layer}" for attention in attentions for layer in layers), shape=(1, 1)),
        *same("feed_forward.in_layer", shape=(4, 1)),
        *same("feed_forward.out_layer", shape=(1, 4)),
        *_read_by(_TIME, modulation),
    )


def _read_by(inputs: tuple[int, ...], *names: str) -> tuple[Group, ...]:
    return tuple(group(name, name, name, inputs=inputs) for name in names)


KANDINSKY5 = Architecture(
    id="kandinsky5",
    title="Kandinsky 5",
    groups=(
        *inside_all("text_transformer_blocks.{n}", _block("text_modulation.out_layer", "self_attention")),
        *inside_all(
            "visual_transformer_blocks.{n}",
            _block("visual_modulation.out_layer", "self_attention", "cross_attention"),
        ),
        *same("time_embeddings.in_layer", "visual_embeddings.in_layer", "out_layer.out_layer"),
        *_read_by(_TIME, "time_embeddings.out_layer", "out_layer.modulation.out_layer"),
        *_read_by((3584,), "text_embeddings.in_layer"),
        *_read_by((768,), "pooled_text_embeddings.in_layer"),
    ),
    depths={"text_transformer_blocks": 4, "visual_transformer_blocks": 60},
    widths=(1792, 2560, 4096),
    sizes={
        1792: {"text_transformer_blocks": 2, "visual_transformer_blocks": 32},
        2560: {"text_transformer_blocks": 2, "visual_transformer_blocks": 50},
        4096: {"text_transformer_blocks": 4, "visual_transformer_blocks": 60},
    },
    musubi_lora_only=True,
)
