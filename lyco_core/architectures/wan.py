"""Wan 2.1 and 2.2 with the models made of them (VACE, Camera, HuMo, S2V, Animate, SCAIL, WanDancer).

They share every name; 2.2 has two models. What is in none that Musubi Tuner trains has no name of Musubi's.
"""

import dataclasses

from .table import Architecture, Group, group, inside_all, same, with_aliases
from .training import ImageInput, MusubiNames, TrainedFamily

__all__ = ["WAN"]

_QKVO = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
_BLOCK = (
    *(
        group(f"{wan}.{ours}", f"{wan}.{ours}", f"{theirs}.{name}", shape=(1, 1))
        for wan, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for ours, name in _QKVO
    ),
    group("ffn.0", "ffn.0", "ffn.net.0.proj"),
    group("ffn.2", "ffn.2", "ffn.net.2"),
)
_IMAGE = (
    group("cross_attn.k_img", "cross_attn.k_img", "attn2.add_k_proj", shape=(1, 1)),
    group("cross_attn.v_img", "cross_attn.v_img", "attn2.add_v_proj", shape=(1, 1)),
)


def _ours(*names: str, shape: tuple[int, int] | None = None) -> tuple[Group, ...]:
    """Modules that ComfyUI's model alone has."""
    return tuple(group(None, name, None, shape=shape) for name in names)


_VACE = (
    *(dataclasses.replace(g, musubi=None) for g in inside_all("vace_blocks.{n}", _BLOCK)),
    *(
        group(None, f"vace_blocks.{{n}}.{ours}", f"vace_blocks.{{n}}.{theirs}", shape=(1, 1))
        for ours, theirs in (("before_proj", "proj_in"), ("after_proj", "proj_out"))
    ),
    group(None, "vace_patch_embedding", "vace_patch_embedding"),
)

_CAMERA = _ours("control_adapter.conv", *(f"control_adapter.residual_blocks.{{n}}.conv{i}" for i in (1, 2)))

_AUDIO = "audio_cross_attn_wrapper.audio_cross_attn"
_HUMO = (
    *_ours(*(f"blocks.{{n}}.{_AUDIO}.{name}" for name in "qo"), shape=(1, 1)),
    *(group(None, f"blocks.{{n}}.{_AUDIO}.{name}", None, inputs=(1536,)) for name in "kv"),
    *_ours(*(f"audio_proj.audio_proj_glob_{i}.layer" for i in (1, 2, 3))),
)

_ENCODER = "casual_audio_encoder.encoder"
_S2V = (
    *_ours(
        *(f"casual_audio_encoder.encoder.{name}.conv" for name in ("conv1_local", "conv1_global", "conv2", "conv3"))
    ),
    *_ours("casual_audio_encoder.encoder.final_linear", "cond_encoder"),
    *_ours(*(f"audio_injector.injector.{{n}}.{name}" for name in "qkvo"), shape=(1, 1)),
    *_ours("audio_injector.injector_adain_layers.{n}.linear", shape=(2, 1)),
    *_ours(*(f"frame_packer.{name}" for name in ("proj", "proj_2x", "proj_4x"))),
)


def _theirs(names: dict[str, str]) -> tuple[Group, ...]:
    """Modules of ComfyUI's model -> diffusers' names of them."""
    return tuple(group(None, ours, theirs) for ours, theirs in names.items())


_MOTION = "motion_encoder.enc.net_app.convs"
_ANIMATE = (
    *_theirs({"pose_patch_embedding": "pose_patch_embedding"}),
    group(
        None,
        "face_adapter.fuser_blocks.{n}.linear1_kv",
        "face_adapter.{n}.to_k face_adapter.{n}.to_v",
        heights=(1, 1),
        shape=(2, 1),
    ),
    *(
        group(None, f"face_adapter.fuser_blocks.{{n}}.{ours}", f"face_adapter.{{n}}.{theirs}", shape=(1, 1))
        for ours, theirs in (("linear1_q", "to_q"), ("linear2", "to_out"))
    ),
    *_theirs({f"face_encoder.{name}.conv": f"face_encoder.{name}" for name in ("conv1_local", "conv2", "conv3")}),
    *_theirs({"face_encoder.out_proj": "face_encoder.out_proj"}),
    *_theirs({f"{_MOTION}.0.0": "motion_encoder.conv_in", f"{_MOTION}.8": "motion_encoder.conv_out"}),
    *_theirs(
        {
            f"{_MOTION}.{i + 1}.{ours}": f"motion_encoder.res_blocks.{i}.{theirs}"
            for i in range(7)
            for ours, theirs in (("conv1.0", "conv1"), ("conv2.1", "conv2"), ("skip.1", "conv_skip"))
        }
    ),
    *_theirs({f"motion_encoder.enc.fc.{i}": f"motion_encoder.motion_network.{i}" for i in range(5)}),
    *_ours("motion_encoder.dec.direction"),
)

_SCAIL = _ours("patch_embedding_pose", "patch_embedding_mask")

_DANCER = (
    *_ours("patch_embedding_global", "img_emb_refimage.proj.1", "img_emb_refimage.proj.3", "head_global.head"),
    *_ours(*(f"music_injector.injector.{{n}}.{name}" for name in "qkvo"), shape=(1, 1)),
    *_ours("music_projection", *(f"music_encoder.{{n}}.self_attn.{name}_proj" for name in ("q", "k", "v", "out"))),
    *_ours("music_encoder.{n}.linear1", "music_encoder.{n}.linear2"),
)

# Animate 2's own code, and DiffSynth's, has each block inside another.
_WRAPPED = {
    f"blocks.{{n}}.{name}": f"blocks.{{n}}.block.{name}" for g in (*_BLOCK, *_IMAGE) for name in g.comfyui or ()
}

_EMBEDDER = "condition_embedder"

WAN = Architecture(
    id="wan",
    title="Wan 2.1/2.2",
    groups=(
        *with_aliases(inside_all("blocks.{n}", (*_BLOCK, *_IMAGE)), "comfyui", _WRAPPED),
        *same("patch_embedding"),
        group("text_embedding.0", "text_embedding.0", f"{_EMBEDDER}.text_embedder.linear_1", inputs=(4096,)),
        group("text_embedding.2", "text_embedding.2", f"{_EMBEDDER}.text_embedder.linear_2", shape=(1, 1)),
        group("time_embedding.0", "time_embedding.0", f"{_EMBEDDER}.time_embedder.linear_1", inputs=(256,)),
        group("time_embedding.2", "time_embedding.2", f"{_EMBEDDER}.time_embedder.linear_2", shape=(1, 1)),
        group("time_projection.1", "time_projection.1", f"{_EMBEDDER}.time_proj", shape=(6, 1)),
        group("img_emb.proj.1", "img_emb.proj.1", f"{_EMBEDDER}.image_embedder.ff.net.0.proj", inputs=(1280,)),
        group("img_emb.proj.3", "img_emb.proj.3", f"{_EMBEDDER}.image_embedder.ff.net.2", inputs=(1280,)),
        group("head.head", "head.head", "proj_out"),
        *_ours("ref_conv"),
        *_VACE,
        *_CAMERA,
        *_HUMO,
        *_S2V,
        *_ANIMATE,
        *_SCAIL,
        *_DANCER,
    ),
    depths={"blocks": 40},
    widths=(1536, 3072, 5120),
    sizes={1536: {"blocks": 30}, 3072: {"blocks": 30}, 5120: {"blocks": 40}},
    training=TrainedFamily(
        excludes=(r".*(patch_embedding|text_embedding|time_embedding|time_projection|norm|head).*",),
        sampling="shift",
        shift=3.0,
        frames_a_second=16,
        steps=(16, 4),
        names=MusubiNames("wan", "wan2.1", "https://github.com/Wan-Video/Wan2.1", "lora_wan"),
        image_input=ImageInput(
            reads="patch_embedding",
            writes="head.head",
            by_itself={
                "vace_patch_embedding": "vace_frames",
                "patch_embedding_pose": "reference_latents",  # SCAIL
                "audio_proj.audio_proj_glob_1.layer": None,  # HuMo
            },
        ),
        clip_type="WAN",
        learns_data=False,
        comfyui_blocks=("vace_blocks", "blocks"),
        comfyui_norms=(),
        outside=(),
        by_musubi=True,
    ),
)
