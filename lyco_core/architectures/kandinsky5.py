"""Kandinsky 5: known by name only, because Musubi Tuner trains LoRA for it but no LoHa or LoKr."""

from .table import Architecture, inside_all, same

_ATTENTION = ("to_query", "to_key", "to_value", "out_layer")
_FEED_FORWARD = ("feed_forward.in_layer", "feed_forward.out_layer")
_TEXT = same(*(f"self_attention.{name}" for name in _ATTENTION), *_FEED_FORWARD)
_VISUAL = _TEXT + same(*(f"cross_attention.{name}" for name in _ATTENTION))

KANDINSKY5 = Architecture(
    id="kandinsky5",
    title="Kandinsky 5",
    groups=tuple(
        g
        for name, block in (("text_transformer_blocks.{n}", _TEXT), ("visual_transformer_blocks.{n}", _VISUAL))
        for g in inside_all(name, block)
    ),
    depths={"text_transformer_blocks": 4, "visual_transformer_blocks": 60},
    refused="not supported with LoHa/LoKr; Musubi Tuner trains it with LoRA only",
)
