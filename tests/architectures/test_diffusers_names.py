"""Our diffusers names are modules of diffusers' own classes, shapes too, and its converters agree on every row."""

import math
import re

import pytest
import torch
from lyco_testing.families import family_of, renamed, shapes_of, without_numbers

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")

_STEPS = ("SDCascadeResBlock", "SDCascadeTimestepBlock")
SD35 = {"pos_embed_max_size": 192, "qk_norm": "rms_norm"}
MODELS = {
    "ace_step_1_5": ("AceStepTransformer1DModel", {}),
    "auraflow": ("AuraFlowTransformer2DModel", {}),
    "chroma": ("ChromaTransformer2DModel", {}),
    "anima": ("CosmosTransformer3DModel", {"num_attention_heads": 16, "num_layers": 28, "extra_pos_embed_type": None}),
    "cogvideox_1_5": ("CogVideoXTransformer3DModel", {
        "num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True, "in_channels": 32,
        "patch_size_t": 2, "ofs_embed_dim": 512,
    }),
    "cogvideox_5b": ("CogVideoXTransformer3DModel", {
        "num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True,
    }),
    "cosmos_1_7b": ("CosmosTransformer3DModel", {"num_layers": 28, "extra_pos_embed_type": None}),
    "ernie_image": ("ErnieImageTransformer2DModel", {
        "hidden_size": 4096, "num_attention_heads": 32, "num_layers": 36, "ffn_hidden_size": 12288,
        "text_in_dim": 3072,
    }),
    "hidream": ("HiDreamImageTransformer2DModel", {
        "patch_size": 2, "in_channels": 16, "num_layers": 16, "num_single_layers": 32, "attention_head_dim": 128,
        "num_attention_heads": 20, "caption_channels": [4096, 4096], "text_emb_dim": 2048, "num_routed_experts": 4,
        "axes_dims_rope": (64, 32, 32), "max_resolution": (128, 128), "llama_layers": [*range(32), *16 * [31]],
    }),
    "hunyuan_dit": ("HunyuanDiT2DModel", {
        "hidden_size": 1408, "num_layers": 40, "mlp_ratio": 4.3637, "in_channels": 4, "patch_size": 2,
        "sample_size": 128, "text_len": 77, "text_len_t5": 256, "use_style_cond_and_image_meta_size": False,
        "activation_fn": "gelu-approximate",
    }),
    "flux3": ("Flux3Transformer2DModel", {"flow_map": True}),
    "hunyuan_image": ("HunyuanImageTransformer2DModel", {"text_embed_2_dim": 1472}),
    "ideogram4": ("Ideogram4Transformer2DModel", {}),
    "joyimage": ("JoyImageEditTransformer3DModel", {
        "hidden_size": 4096, "num_attention_heads": 32, "num_layers": 40,
    }),
    "kandinsky5_lite": ("Kandinsky5Transformer3DModel", {
        "in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 1792, "ff_dim": 7168, "visual_cond": True,
    }),
    "krea2": ("Krea2Transformer2DModel", {}),
    "longcat_image": ("LongCatImageTransformer2DModel", {"num_layers": 10, "num_single_layers": 20}),
    "ltx_2": ("LTX2VideoTransformer3DModel", {}),
    "ltx_2_3": ("LTX2VideoTransformer3DModel", {
        "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
        "use_prompt_embeddings": False,
    }),
    "ltx_video_2b": ("LTXVideoTransformer3DModel", {}),
    "ltx_video_13b": ("LTXVideoTransformer3DModel", {
        "attention_head_dim": 128, "num_layers": 48, "cross_attention_dim": 4096,
    }),
    "lumina2": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    "minimax_h3": ("MiniMaxH3Transformer3DModel", {}),
    "minimax_music_3": ("MiniMaxMusic3Transformer1DModel", {}),
    "mochi": ("MochiTransformer3DModel", {}),
    "pixart_alpha": ("PixArtTransformer2DModel", {
        "sample_size": 128, "caption_channels": 4096, "use_additional_conditions": True,
    }),
    "qwen_image_2_1": ("QwenImage21Transformer2DModel", {}),
    "sd15": ("UNet2DConditionModel", {"cross_attention_dim": 768}),
    "sd35_large": ("SD3Transformer2DModel", SD35 | {
        "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
    }),
    "sd35_medium": ("SD3Transformer2DModel", SD35 | {
        "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
        "dual_attention_layers": tuple(range(13)),
    }),
    "sdxl": ("UNet2DConditionModel", {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }),
    "sdxl_refiner": ("UNet2DConditionModel", {
        "block_out_channels": (384, 768, 1536, 1536), "cross_attention_dim": 1280, "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 4, "attention_head_dim": [6, 12, 24, 24],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2560,
    }),
    "stable_cascade": ("StableCascadeUNet", {
        "clip_image_in_channels": 768, "clip_text_in_channels": 1280, "clip_text_pooled_in_channels": 1280,
        "switch_level": [False],
    }),
    "stable_cascade_b": ("StableCascadeUNet", {
        "block_out_channels": (320, 640, 1280, 1280), "block_types_per_layer": 2 * [_STEPS[:2]] + 2 * [
            (*_STEPS[:2], "SDCascadeAttnBlock"),
        ],
        "clip_text_pooled_in_channels": 1280, "conditioning_dim": 1280, "down_blocks_repeat_mappers": (1, 1, 1, 1),
        "down_num_layers_per_block": (2, 6, 28, 6), "dropout": (0, 0, 0.1, 0.1), "effnet_in_channels": 16,
        "in_channels": 4, "num_attention_heads": (0, 0, 20, 20), "out_channels": 4, "patch_size": 2,
        "pixel_mapper_in_channels": 3, "self_attn": True, "timestep_conditioning_type": ("sca",),
        "up_blocks_repeat_mappers": (3, 3, 2, 2), "up_num_layers_per_block": (6, 28, 6, 2),
    }),
    "wan_animate": ("WanAnimateTransformer3DModel", {"added_kv_proj_dim": 5120}),
    "wan_vace": ("WanVACETransformer3DModel", {}),
}  # fmt: skip

LOOKED_UP = {"ideogram4": {"embed_image_indicator"}}
"""Weights of two dimensions that no Linear has."""

TABLES = re.compile(r"(.*\.)?scale_shift_table|time_proj|motion_encoder\.motion_synthesis_weight|\w+_frequencies")
"""Parameters and frequencies that nobody trains with low-rank factors."""


@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")  # diffusers' own, in its Chroma
@pytest.mark.parametrize("model", MODELS)
def test_names_and_shapes(model: str, monkeypatch: pytest.MonkeyPatch):
    name, config = MODELS[model]
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    without_numbers(monkeypatch)
    with torch.device("meta"):
        built = getattr(diffusers, name)(**config)
    theirs = {
        key.removesuffix(".weight"): (weight.shape[0], math.prod(weight.shape[1:]))
        for key, weight in built.state_dict().items()
        if key.endswith(".weight") and weight.ndim > 1 and not TABLES.fullmatch(key.removesuffix(".weight"))
    }
    ours = renamed(model, "diffusers")
    assert ours == {path: shape for path, shape in theirs.items() if path not in LOOKED_UP.get(model, ())}


CONVERTERS = {
    "auraflow": "convert_auraflow_transformer_checkpoint_to_diffusers",
    "anima": "convert_cosmos_transformer_checkpoint_to_diffusers",
    "flux3": "convert_flux3_transformer_checkpoint_to_diffusers",
    "hidream": "convert_hidream_transformer_to_diffusers",
    "krea2": "convert_krea2_transformer_checkpoint_to_diffusers",
    "ltx_2": "convert_ltx2_transformer_to_diffusers",
    "ltx_video_13b": "convert_ltx_transformer_checkpoint_to_diffusers",
    "lumina2": "convert_lumina2_to_diffusers",
    "qwen_image_2_1": "convert_qwen_image21_transformer_checkpoint_to_diffusers",
    "minimax_h3": "convert_minimax_h3_transformer_checkpoint_to_diffusers",
    "wan_vace": "convert_wan_transformer_to_diffusers",
}
"""Of those families whose diffusers names ComfyUI's key map has not, or has as ours."""


@pytest.mark.parametrize("model", CONVERTERS)
def test_diffusers_converts_the_same_rows(model: str):
    """A checkpoint of one column, whose numbers tell every row of every weight from all others."""
    convert = getattr(pytest.importorskip("diffusers.loaders.single_file_utils"), CONVERTERS[model], None)
    if convert is None:
        pytest.skip(f"diffusers {diffusers.__version__} has no {CONVERTERS[model]}")
    family = family_of(model)
    heights = {
        path: shape[0] for path, shape in shapes_of(model).items() if family.locate(path, "comfyui", "diffusers")
    }
    numbers = torch.arange(sum(heights.values())).split(list(heights.values()))
    weights = dict(zip(heights, (rows[:, None] for rows in numbers), strict=True))
    prefix = "net." if model == "anima" else ""  # as NVIDIA's own checkpoints
    beside = dict.fromkeys(("positional_encoding", "init_x_linear.bias") if model == "auraflow" else ())
    given = beside | {f"{prefix}{path}.weight": weight.clone() for path, weight in weights.items()}
    converted = convert(given, **({"config": {}} if model == "minimax_h3" else {}))
    for path in renamed(model, "diffusers"):
        (target,) = family.locate(path, "diffusers", "comfyui")
        start, stop, total = (heights[target.path] * edge // target.rows[2] for edge in target.rows)
        assert total == heights[target.path]
        rows = weights[target.path][start:stop]
        expected = rows.roll(len(rows) // 2, 0) if target.swapped else rows
        assert torch.equal(converted.pop(f"{path}.weight"), expected), path
    assert not [name for name, tensor in converted.items() if tensor is not None]
