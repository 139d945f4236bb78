"""HunyuanVideo, HunyuanVideo 1.5, and FramePack, which is HunyuanVideo under diffusers' names.

ComfyUI runs no FramePack model, so FramePack's `comfyui` layout is HunyuanVideo's.
"""

from __future__ import annotations

import dataclasses

from .dual_stream import COMFYUI_BLOCKS, COMFYUI_NORMS, double_stream, single_stream
from .table import Architecture, Group, group, inside
from .training import ImageInput, MusubiNames, TrainedFamily, trained_here

_MUSUBI = {
    "mod": "{s}_mod.linear",
    "qkv": "{s}_attn_qkv",
    "proj": "{s}_attn_proj",
    "mlp_in": "{s}_mlp.fc1",
    "mlp_out": "{s}_mlp.fc2",
}
_SPLIT_QKV = {"qkv": "{s}_attn_q {s}_attn_k {s}_attn_v"}
_FF = ("net.0.proj", "net.2")


def _double(names: dict[str, str]) -> tuple[Group, ...]:
    block = double_stream(names, ff=_FF, mlp=(4, 4))
    return inside("double_blocks.{n}", "double_blocks.{n}", "transformer_blocks.{n}", block)


_SINGLE = inside(
    "single_blocks.{n}",
    "single_blocks.{n}",
    "single_transformer_blocks.{n}",
    single_stream("modulation.linear"),
)

_REFINER_BLOCK = (
    group("adaLN_modulation.1", "adaLN_modulation.1", "norm_out.linear", shape=(2, 1)),
    group(
        "self_attn_qkv",
        "self_attn.qkv",
        "attn.to_q attn.to_k attn.to_v",
        heights=(1, 1, 1),
        shape=(3, 1),
    ),
    group("self_attn_proj", "self_attn.proj", "attn.to_out.0", shape=(1, 1)),
    group("mlp.fc1", "mlp.0", "ff.net.0.proj", shape=(4, 1)),
    group("mlp.fc2", "mlp.2", "ff.net.2", shape=(1, 4)),
)

_TEXT = (
    group("input_embedder", "input_embedder", "proj_in"),
    group("t_embedder.mlp.0", "t_embedder.in_layer", "time_text_embed.timestep_embedder.linear_1"),
    group("t_embedder.mlp.2", "t_embedder.out_layer", "time_text_embed.timestep_embedder.linear_2"),
    group("c_embedder.linear_1", "c_embedder.in_layer", "time_text_embed.text_embedder.linear_1"),
    group("c_embedder.linear_2", "c_embedder.out_layer", "time_text_embed.text_embedder.linear_2"),
    *inside(
        "individual_token_refiner.blocks.{n}",
        "individual_token_refiner.blocks.{n}",
        "token_refiner.refiner_blocks.{n}",
        _REFINER_BLOCK,
    ),
)

# diffusers keeps the final modulation's scale above its shift, the others the shift above the scale.
_SHARED = (
    *inside("txt_in", "txt_in", "context_embedder", _TEXT),
    group("img_in.proj", "img_in.proj", "x_embedder.proj"),
    group("final_layer.linear", "final_layer.linear", "proj_out"),
    group(
        "final_layer.adaLN_modulation.1",
        "final_layer.adaLN_modulation.1",
        "norm_out.linear",
        shape=(2, 1),
        swapped=("diffusers",),
    ),
)

HUNYUAN_VIDEO = Architecture(
    id="hunyuan_video",
    title="HunyuanVideo",
    groups=(
        *_double(_MUSUBI),
        *_SINGLE,
        *_SHARED,
        group("time_in.mlp.0", "time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
        group("time_in.mlp.2", "time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
        group("vector_in.in_layer", "vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
        group("vector_in.out_layer", "vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
        group("guidance_in.mlp.0", "guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
        group("guidance_in.mlp.2", "guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
    ),
    depths={"double_blocks": 20, "single_blocks": 40},
    widths=(3072,),
    training=TrainedFamily(
        excludes=(r".*(img_mod|txt_mod|modulation).*",),
        sampling="shift",
        shift=7.0,
        frames_a_second=24,
        steps=(16, 4),
        names=MusubiNames("hunyuan_video", "hunyuan-video", "https://github.com/Tencent/HunyuanVideo", "lora"),
        image_input=ImageInput(reads="img_in.proj", writes="final_layer.linear"),
        clip_type="HUNYUAN_VIDEO",
        learns_data=False,
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
        outside=(),
        by_musubi=True,
    ),
)

_BYT5 = tuple(
    group(f"byt5_in.fc{n}", f"byt5_in.fc{n}", f"context_embedder_2.linear_{n}", inputs=(width,))
    for n, width in enumerate((1472, 2048, 2048), 1)
)

HUNYUAN_VIDEO_1_5 = Architecture(
    id="hunyuan_video_1_5",
    title="HunyuanVideo 1.5",
    groups=(
        *_double(_MUSUBI | _SPLIT_QKV),
        *_SHARED,
        # What is distilled has the step that it goes to as another time.
        *(
            group(f"{ours}.mlp.{2 * n}", f"{ours}.{layer}_layer", f"time_embed.{theirs}.linear_{n + 1}")
            for ours, theirs in (("time_in", "timestep_embedder"), ("time_r_in", "timestep_embedder_r"))
            for n, layer in enumerate(("in", "out"))
        ),
        *_BYT5,
        group("vision_in.proj.1", "vision_in.proj.1", "image_embedder.linear_1"),
        group("vision_in.proj.3", "vision_in.proj.3", "image_embedder.linear_2"),
    ),
    depths={"double_blocks": 54},
    widths=(2048,),
    training=TrainedFamily(
        excludes=(r".*(_in).*",),
        sampling="shift",
        shift=2.0,
        frames_a_second=24,
        steps=(16, 4),
        names=MusubiNames(
            "hunyuan_video_1_5",
            "hunyuan-video-1.5",
            "https://github.com/Tencent-Hunyuan/HunyuanVideo-1.5",
            "lora_hv_1_5",
        ),
        image_input=None,  # it has channels for an image in any case, and zeros in them are its text to video
        clip_type="HUNYUAN_VIDEO_15",
        learns_data=False,
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
        outside=(),
        by_musubi=True,
    ),
)


# diffusers calls its time's embedding as HunyuanVideo's guidance is called beside it; the step that a distilled model
# goes to is told as another time.
HUNYUAN_IMAGE = Architecture(
    id="hunyuan_image",
    title="HunyuanImage 2.1",
    groups=(
        *_double(_MUSUBI),
        *_SINGLE,
        *_SHARED,
        *_BYT5,
        *(
            group(f"{ours}.mlp.{2 * n}", f"{ours}.{layer}_layer", f"time_guidance_embed.{theirs}.linear_{n + 1}")
            for ours, theirs in (
                ("time_in", "timestep_embedder"),
                ("time_r_in", "timestep_embedder_r"),
                ("guidance_in", "guidance_embedder"),
            )
            for n, layer in enumerate(("in", "out"))
        ),
    ),
    depths={"double_blocks": 20, "single_blocks": 40},
    widths=(3584,),
    training=trained_here(
        MusubiNames(
            "hunyuan-image-2.1",
            "hunyuan-image-2.1",
            "https://github.com/Tencent-Hunyuan/HunyuanImage-2.1",
            "lora_hunyuan_image",
        ),
        "double_blocks single_blocks",
        "HUNYUAN_IMAGE",
        excludes=(r".*(img_mod|txt_mod|modulation).*",),
        norms=COMFYUI_NORMS,
        shift=5.0,
        steps=(32, 4),
    ),
)


def _as_framepack(g: Group) -> Group:
    """A group of HunyuanVideo with Musubi's FramePack names, and rows, which are diffusers' own."""
    return dataclasses.replace(g, musubi=g.diffusers, swapped=("musubi", "diffusers") if g.swapped else ())


FRAMEPACK = Architecture(
    id="framepack",
    title="FramePack",
    groups=(
        *(_as_framepack(g) for g in HUNYUAN_VIDEO.groups if g.diffusers is not None),
        *(
            group(name, None, name)
            for name in (
                "clean_x_embedder.proj",
                "clean_x_embedder.proj_2x",
                "clean_x_embedder.proj_4x",
                "image_projection.up",
                "image_projection.down",
            )
        ),
    ),
    depths={"transformer_blocks": 20, "single_transformer_blocks": 40},
    widths=(3072,),
    training=TrainedFamily(
        excludes=(r".*(norm).*",),
        sampling="shift",
        shift=3.0,
        frames_a_second=None,
        steps=(16, 4),
        names=MusubiNames("framepack", "framepack", "https://github.com/lllyasviel/FramePack", "lora_framepack"),
        image_input=None,
        clip_type=None,
        learns_data=False,
        comfyui_blocks=COMFYUI_BLOCKS,
        comfyui_norms=COMFYUI_NORMS,
        outside=(),
        by_musubi=True,
    ),
)
