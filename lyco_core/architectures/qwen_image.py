"""Qwen-Image and Qwen-Image-Edit: one set of names, diffusers' own, in every layout."""

from .table import Architecture, inside_all, same

_BLOCK = (
    *same("img_mod.1", "txt_mod.1", shape=(6, 1)),
    *same(
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_out.0",
        "attn.to_add_out",
        shape=(1, 1),
    ),
    *same("img_mlp.net.0.proj", "txt_mlp.net.0.proj", shape=(4, 1)),
    *same("img_mlp.net.2", "txt_mlp.net.2", shape=(1, 4)),
)

QWEN_IMAGE = Architecture(
    id="qwen_image",
    title="Qwen-Image",
    groups=(
        *inside_all("transformer_blocks.{n}", _BLOCK),
        *same(
            "img_in",
            "txt_in",
            "time_text_embed.timestep_embedder.linear_1",
            "time_text_embed.timestep_embedder.linear_2",
            "norm_out.linear",
            "proj_out",
        ),
    ),
    depths={"transformer_blocks": 60},
    widths=(3072,),
    target_blocks=("QwenImageTransformerBlock",),
    # Musubi's own pattern; it matches no dotted name, so img_mod.1 and txt_mod.1 are trained.
    default_excludes=(r".*(_mod_).*",),
)
