"""Every model that a ComfyUI has, of its own classes, full size on the meta device."""

from __future__ import annotations

from typing import Any

_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "use_temporal_resblock": False,
}  # fmt: skip
_SD = _UNET | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "num_head_channels": 64, "context_dim": 1024,
}  # fmt: skip
_VECTOR = {"num_classes": "sequential"}
_SDXL = _UNET | _VECTOR | {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64}
_VIDEO = _SD | _VECTOR | {
    "use_temporal_attention": True, "use_temporal_resblock": True, "video_kernel_size": [3, 1, 1],
    "extra_ff_mix_layer": True, "merge_strategy": "learned_with_images", "merge_factor": 0.0, "max_ddpm_temb_period":
    10000,
}  # fmt: skip


def _sdxl(*depths: int, middle: int) -> dict[str, Any]:
    """Of the depths of each level: two transformers down, three up."""
    return _SDXL | {
        "transformer_depth": [depth for depth in depths for _ in range(2)],
        "transformer_depth_middle": middle,
        "transformer_depth_output": [depth for depth in depths for _ in range(3)],
    }


def _koala(middle: int) -> dict[str, Any]:
    return _SDXL | {
        "num_res_blocks": [1, 1, 1], "transformer_depth": [0, 2, middle], "transformer_depth_middle": -2,
        "transformer_depth_output": [0, 0, 2, 2, middle, middle],
    }  # fmt: skip


_FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
    "mlp_ratio": 4.0, "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "axes_dim": [16, 56, 56],
    "theta": 10000, "patch_size": 2, "qkv_bias": True, "txt_ids_dims": [],
}  # fmt: skip
_CHROMA = _FLUX | {"in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120}
_CHROMA |= {"n_layers": 5, "vec_in_dim": None}
_HUNYUAN = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
    "mlp_ratio": 4.0, "num_heads": 24, "depth": 20, "depth_single_blocks": 40, "axes_dim": [16, 56, 56],
    "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False,
    "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
_HUNYUAN_1_5 = _HUNYUAN | {
    "in_channels": 65, "out_channels": 32, "vec_in_dim": None, "context_in_dim": 3584, "hidden_size": 2048,
    "num_heads": 16, "depth": 54, "depth_single_blocks": 0, "patch_size": [1, 1, 1], "guidance_embed": False,
    "byt5": True, "use_cond_type_embedding": True, "meanflow_sum": True,
}  # fmt: skip
_HUNYUAN_IMAGE = _HUNYUAN | {
    "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "context_in_dim": 3584, "hidden_size": 3584,
    "num_heads": 28, "axes_dim": [64, 64], "patch_size": [1, 1], "byt5": True, "guidance_embed": False,
}  # fmt: skip
_COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "pos_emb_cls": "rope3d", "use_adaln_lora": True,
    "adaln_lora_dim": 256,
}  # fmt: skip
_COSMOS_1 = _COSMOS | {
    "model_channels": 4096, "num_blocks": 28, "num_heads": 32, "block_config": "FA-CA-MLP", "pos_emb_learnable": False,
    "pos_emb_interpolation": "crop", "block_x_format": "THWBD", "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
_COSMOS_2 = _COSMOS | {"model_channels": 2048, "num_blocks": 28, "num_heads": 16, "crossattn_emb_channels": 1024}

CONFIG: dict[str, dict[str, Any]] = {
    "LotusD": _SD | _VECTOR | {"out_channels": 4},
    "Stable_Zero123": _SD | {"num_heads": 8, "num_head_channels": -1},
    "SD15_instructpix2pix": _SD | {"num_heads": 8, "num_head_channels": -1, "in_channels": 8},
    "SD15": _SD | {"num_heads": 8, "num_head_channels": -1},
    "SD20": _SD,
    "SD21UnclipL": _SD | _VECTOR,
    "SD21UnclipH": _SD | _VECTOR,
    "SDXL_instructpix2pix": _sdxl(0, 2, 10, middle=10) | {"in_channels": 8},
    "SDXLRefiner": _SD | _VECTOR | {
        "transformer_depth_middle": 4, "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    },
    "SDXL": _sdxl(0, 2, 10, middle=10),
    "SSD1B": _sdxl(0, 2, 4, middle=-1) | {"transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4]},
    "KOALA_700M": _koala(5),
    "KOALA_1B": _koala(6),
    "Segmind_Vega": _sdxl(0, 1, 2, middle=-1),
    "SD_X4Upscaler": _SD | _VECTOR | {
        "in_channels": 7, "channel_mult": [1, 2, 2, 4], "num_heads": 8, "num_head_channels": -1, "num_classes": 1000,
        "transformer_depth": [0, 0, 1, 1, 1, 1, 1, 1], "disable_self_attentions": [True, True, True, False],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    },
    "SV3D_u": _VIDEO,
    "SV3D_p": _VIDEO,
    "SVD_img2vid": _VIDEO,
    "SD3": {
        "out_channels": 16, "patch_size": 2, "depth": 38, "input_size": None, "qk_norm": "rms",
        "adm_in_channels": 2048, "num_patches": 36864, "pos_embed_max_size": 192, "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 2432},
        },
    },
    "StableAudio3": {"timestep_features_type": "expo"},
    "FluxInpaint": _FLUX,
    "Flux": _FLUX,
    "LongCatImage": _FLUX,
    "FluxSchnell": _FLUX,
    "Flux2": _FLUX | {
        "vec_in_dim": None, "in_channels": 128, "out_channels": 128, "context_in_dim": 15360, "hidden_size": 6144,
        "mlp_ratio": 3.0, "num_heads": 48, "depth": 8, "depth_single_blocks": 48, "axes_dim": [32] * 4, "theta": 2000,
        "patch_size": 1, "qkv_bias": False, "guidance_embed": True, "txt_ids_dims": [3], "global_modulation": True,
        "mlp_silu_act": True, "ops_bias": False,
    },
    "GenmoMochi": {
        "depth": 48, "patch_size": 2, "num_heads": 24, "hidden_size_x": 3072, "hidden_size_y": 1536,
        "mlp_ratio_x": 4.0, "mlp_ratio_y": 4.0, "in_channels": 12, "qk_norm": True, "qkv_bias": False,
        "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": 4096, "t5_token_length": 256,
    },
    "HunyuanVideo15_SR_Distilled": _HUNYUAN_1_5,
    "HunyuanVideo15": _HUNYUAN_1_5,
    "HunyuanImage21Refiner": _HUNYUAN_IMAGE | {"axes_dim": [16, 56, 56]},
    "HunyuanImage21": _HUNYUAN_IMAGE,
    "HunyuanVideoSkyreelsI2V": _HUNYUAN,
    "HunyuanVideoI2V": _HUNYUAN,
    "HunyuanVideo": _HUNYUAN,
    "CosmosT2V": _COSMOS_1,
    "CosmosI2V": _COSMOS_1,
    "CosmosT2IPredict2": _COSMOS_2,
    "CosmosI2VPredict2": _COSMOS_2,
    "Anima": _COSMOS_2 | {"in_channels": 16},
    "ZImage": {
        "patch_size": 2, "in_channels": 16, "n_layers": 30, "n_heads": 30, "n_kv_heads": 30, "qk_norm": True,
        "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "cap_feat_dim": 2560, "z_image_modulation": True,
        "ffn_dim_multiplier": 8 / 3,
    },
    "Lumina2": {
        "dim": 2304, "patch_size": 2, "in_channels": 16, "n_layers": 26, "n_heads": 24, "n_kv_heads": 8,
        "qk_norm": True, "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512], "cap_feat_dim": 2304,
    },
    "HiDream": {
        "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32], "caption_channels": [4096, 4096],
        "max_resolution": [128, 128], "in_channels": 16, "out_channels": 16, "llama_layers": [*range(32), *16 * [31]],
        "num_attention_heads": 20, "num_routed_experts": 4, "num_activated_experts": 2, "num_layers": 16,
        "num_single_layers": 32, "patch_size": 2, "text_emb_dim": 2048,
    },
    "Chroma": _CHROMA,
    "ChromaRadiance": _CHROMA | {
        "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 64, "nerf_mlp_ratio": 4,
        "nerf_depth": 4, "nerf_max_freqs": 8, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
        "nerf_embedder_dtype": None, "use_x0": False, "use_sequential_txt_ids": False,
    },
    "SeedVR2": {
        "vid_dim": 2560, "heads": 20, "num_layers": 32, "norm_eps": 1e-5, "mlp_type": "swiglu", "vid_out_norm": True,
    },
    "Trellis2": {"resolution": 64, "init_txt_model": True},
    "ACEStep15": {"num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_dit_layers": 24},
}  # fmt: skip
"""Class of comfy.supported_models -> what its detection adds to the `unet_config` of the class, where it must."""

NEEDS_WEIGHTS = {"Stable_Zero123", "StableAudio", "StableAudio3"}
"""Classes that cannot be built without weights of a checkpoint, beside the diffusion model."""

ON_CPU = {"ACEStep15"}
"""Classes that compute while they are built."""


def names() -> list[str]:
    """The classes of this ComfyUI that can be built."""
    import comfy.supported_models

    return [found.__name__ for found in comfy.supported_models.models if found.__name__ not in NEEDS_WEIGHTS]


def patcher(name: str) -> Any:
    """A MODEL of the graph with a model of the class."""
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models
    import torch

    cls = getattr(comfy.supported_models, name)
    family = cls(CONFIG.get(name, {}) | cls.unet_config)
    family.set_inference_dtype(torch.bfloat16, None)
    family.custom_operations = comfy.ops.manual_cast
    model = family.get_model({}, device="cpu" if name in ON_CPU else "meta")
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
