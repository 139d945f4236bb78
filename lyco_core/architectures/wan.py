"""Wan 2.1 and 2.2 (text to video, image to video). The two share every name; 2.2 has two models."""

from .table import Architecture, group, inside_all, same
from .training import ImageInput, MusubiNames, TrainedFamily

_BLOCK = (
    *(
        group(f"{wan}.{ours}", f"{wan}.{ours}", f"{theirs}.{name}", shape=(1, 1))
        for wan, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for ours, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
    ),
    group("cross_attn.k_img", "cross_attn.k_img", "attn2.add_k_proj", shape=(1, 1)),
    group("cross_attn.v_img", "cross_attn.v_img", "attn2.add_v_proj", shape=(1, 1)),
    group("ffn.0", "ffn.0", "ffn.net.0.proj"),
    group("ffn.2", "ffn.2", "ffn.net.2"),
)

_EMBEDDER = "condition_embedder"

WAN = Architecture(
    id="wan",
    title="Wan 2.1/2.2",
    groups=(
        *inside_all("blocks.{n}", _BLOCK),
        *same("patch_embedding"),
        group("text_embedding.0", "text_embedding.0", f"{_EMBEDDER}.text_embedder.linear_1"),
        group("text_embedding.2", "text_embedding.2", f"{_EMBEDDER}.text_embedder.linear_2"),
        group("time_embedding.0", "time_embedding.0", f"{_EMBEDDER}.time_embedder.linear_1"),
        group("time_embedding.2", "time_embedding.2", f"{_EMBEDDER}.time_embedder.linear_2"),
        group("time_projection.1", "time_projection.1", f"{_EMBEDDER}.time_proj", shape=(6, 1)),
        group("img_emb.proj.1", "img_emb.proj.1", f"{_EMBEDDER}.image_embedder.ff.net.0.proj"),
        group("img_emb.proj.3", "img_emb.proj.3", f"{_EMBEDDER}.image_embedder.ff.net.2"),
        group("head.head", "head.head", "proj_out"),
    ),
    depths={"blocks": 40},
    widths=(1536, 3072, 5120),
    sizes={1536: {"blocks": 30}, 3072: {"blocks": 30}, 5120: {"blocks": 40}},
    training=TrainedFamily(
        excludes=(r".*(patch_embedding|text_embedding|time_embedding|time_projection|norm|head).*",),
        sampling="shift",
        shift=3.0,
        frames_a_second=16,
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
        comfyui_blocks=("vace_blocks", "blocks"),
        comfyui_norms=(),
    ),
)
