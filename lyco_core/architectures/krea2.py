"""Krea 2. Musubi and ComfyUI share every name; diffusers has its own."""

from .table import Architecture, inside, renamed

__all__ = ["KREA2"]

_BLOCK = renamed(
    {
        "attn.wq": "attn.to_q",
        "attn.wk": "attn.to_k",
        "attn.wv": "attn.to_v",
        "attn.gate": "attn.to_gate",
        "attn.wo": "attn.to_out.0",
        "mlp.gate": "ff.gate",
        "mlp.up": "ff.up",
        "mlp.down": "ff.down",
    }
)

KREA2 = Architecture(
    id="krea2",
    title="Krea 2",
    groups=(
        *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
        *(
            g
            for name in ("layerwise_blocks.{n}", "refiner_blocks.{n}")
            for g in inside(f"txtfusion.{name}", f"txtfusion.{name}", f"text_fusion.{name}", _BLOCK)
        ),
        *renamed(
            {
                "first": "img_in",
                "tmlp.0": "time_embed.linear_1",
                "tmlp.2": "time_embed.linear_2",
                "tproj.1": "time_mod_proj",
                "txtmlp.1": "txt_in.linear_1",
                "txtmlp.3": "txt_in.linear_2",
                "txtfusion.projector": "text_fusion.projector",
                "last.linear": "final_layer.linear",
            }
        ),
    ),
    depths={"blocks": 28, "txtfusion.layerwise_blocks": 2, "txtfusion.refiner_blocks": 2},
    widths=(6144,),
)
