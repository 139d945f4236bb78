"""Qwen-Image and Qwen-Image-Edit: one set of names, diffusers' own, in every layout."""

from .table import Architecture, inside_all, same
from .training import MusubiNames, TrainedFamily

__all__ = ["BLOCK", "ENDS", "QWEN_IMAGE"]

BLOCK = (
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

ENDS = (
    *same("time_text_embed.timestep_embedder.linear_1", inputs=(256,)),
    *same("time_text_embed.timestep_embedder.linear_2", shape=(1, 1)),
    *same("norm_out.linear", shape=(2, 1)),
)

QWEN_IMAGE = Architecture(
    id="qwen_image",
    title="Qwen-Image",
    groups=(
        *inside_all("transformer_blocks.{n}", BLOCK),
        *ENDS,
        *same("img_in", inputs=(64,)),
        *same("proj_out", outputs=(64,)),
        *same("txt_in", inputs=(3584,)),
    ),
    depths={"transformer_blocks": 60},
    widths=(3072,),
    training=TrainedFamily(
        # Musubi's own pattern; it matches no dotted name, so img_mod.1 and txt_mod.1 are trained.
        excludes=(r".*(_mod_).*",),
        sampling="shift",
        shift=2.2,
        frames_a_second=None,
        steps=(16, 4),
        names=MusubiNames(
            "qwen_image", "Qwen-Image", "https://github.com/QwenLM/Qwen-Image", "lora_qwen_image", (1328, 1328)
        ),
        image_input=None,
        clip_type="QWEN_IMAGE",
        learns_data=False,
        comfyui_blocks=("transformer_blocks",),
        comfyui_norms=("img_norm1", "img_norm2", "txt_norm1", "txt_norm2"),
        outside=(),
        by_musubi=True,
    ),
)
