"""Full-size models of video and of sound: class of comfy.supported_models, and the config that detection would give."""

from typing import Any

__all__ = ["MODELS"]

_WAN = {
    "image_model": "wan2.1", "dim": 5120, "out_dim": 16, "num_heads": 40, "ffn_dim": 13824, "num_layers": 40,
    "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6, "in_dim": 16,
}  # fmt: skip
_KANDINSKY = {"image_model": "kandinsky5", "visual_embed_dim": 132, "axes_dims": (32, 48, 48)}
_H3 = {"image_model": "minimax_h3", "num_layers": 50, "hidden_size": 5376}
_COGVIDEOX = {
    "image_model": "cogvideox", "num_attention_heads": 48, "attention_head_dim": 64, "time_embed_dim": 512,
    "num_layers": 42, "patch_size": 2, "text_embed_dim": 4096, "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip


def _wan(name: str, model_type: str, in_dim: int = 16, **more: Any) -> tuple[str, dict[str, Any]]:
    return name, _WAN | {"model_type": model_type, "in_dim": in_dim} | more


def _kandinsky(name: str, width: int, time: int, text_blocks: int, visual_blocks: int, **more: Any):
    return name, _KANDINSKY | more | {
        "model_dim": width, "ff_dim": 4 * width, "time_dim": time, "num_text_blocks": text_blocks,
        "num_visual_blocks": visual_blocks,
    }  # fmt: skip


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cogvideox_1_5": ("CogVideoX_I2V", _COGVIDEOX | {"in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 512}),
    "cogvideox_5b": ("CogVideoX_T2V", _COGVIDEOX | {"in_channels": 16}),
    "cosmos_1_7b": ("CosmosT2V", {
        "image_model": "cosmos", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
        "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 4096,
        "block_config": "FA-CA-MLP", "concat_padding_mask": True, "pos_emb_cls": "rope3d", "pos_emb_learnable": False,
        "pos_emb_interpolation": "crop", "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True,
        "adaln_lora_dim": 256, "num_blocks": 28, "num_heads": 32, "extra_per_block_abs_pos_emb": True,
        "rope_h_extrapolation_ratio": 1.0, "rope_w_extrapolation_ratio": 1.0, "rope_t_extrapolation_ratio": 2.0,
        "extra_per_block_abs_pos_emb_type": "learnable",
    }),
    "hunyuan_video_i2v": ("HunyuanVideoI2V", {
        "image_model": "hunyuan_video", "in_channels": 33, "patch_size": [1, 2, 2], "out_channels": 16,
        "vec_in_dim": 768, "axes_dim": [16, 56, 56], "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0,
        "num_heads": 24, "depth": 20, "depth_single_blocks": 40, "theta": 256, "qkv_bias": True,
        "guidance_embed": False, "byt5": False, "meanflow": False, "meanflow_sum": False,
        "use_cond_type_embedding": False, "vision_in_dim": None,
    }),
    "hunyuan_video_1_5_distilled": ("HunyuanVideo15", {
        "image_model": "hunyuan_video", "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32,
        "vec_in_dim": None, "axes_dim": [16, 56, 56], "context_in_dim": 3584, "hidden_size": 2048, "mlp_ratio": 4.0,
        "num_heads": 16, "depth": 54, "depth_single_blocks": 0, "theta": 256, "qkv_bias": True,
        "guidance_embed": False, "byt5": True, "meanflow": True, "meanflow_sum": True,
        "use_cond_type_embedding": True, "vision_in_dim": 1152,
    }),
    "kandinsky5_image": _kandinsky("Kandinsky5Image", 2560, 512, 2, 50, visual_embed_dim=64),
    "kandinsky5_lite": _kandinsky("Kandinsky5", 1792, 512, 2, 32, axes_dims=(16, 24, 24)),
    "kandinsky5_pro": _kandinsky("Kandinsky5", 4096, 1024, 4, 60),
    "ltx_2_3": ("LTXAV", {
        "image_model": "ltxav", "num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096,
        "apply_gated_attention": True, "cross_attention_adaln": True, "caption_proj_before_connector": True,
        "caption_projection_first_linear": False, "caption_projection_second_linear": False,
        "connector_apply_gated_attention": True, "connector_num_attention_heads": 32, "connector_num_layers": 8,
        "audio_connector_num_attention_heads": 32, "audio_connector_attention_head_dim": 64,
    }),
    "minimax_h3": ("MiniMaxH3", _H3),
    "minimax_h3_curve": ("MiniMaxH3", _H3 | {"adaln_curve_grid": 1000, "time_embed_dim": 16}),
    "minimax_music_3": ("MiniMaxMusic3", {"audio_model": "minimax_music3"}),
    "mochi": ("GenmoMochi", {
        "image_model": "mochi_preview", "depth": 48, "patch_size": 2, "num_heads": 24, "hidden_size_x": 3072,
        "hidden_size_y": 1536, "mlp_ratio_x": 4.0, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12,
        "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
        "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
        "use_t5": True, "t5_feat_dim": 4096, "t5_token_length": 256, "rope_theta": 10000.0,
    }),
    "wan_animate": _wan("WAN22_Animate", "animate", 36),
    "wan_animate_2": _wan("WAN_Animate2", "animate2", 36),
    "wan_camera": _wan("WAN21_Camera", "camera", 32),
    "wan_dancer": _wan("WAN22_WanDancer", "wandancer", 36),
    "wan_fun": _wan("WAN21_FunControl2V", "i2v", 48, in_dim_ref_conv=16),
    "wan_humo": _wan("WAN21_HuMo", "humo", 36),
    "wan_s2v": _wan("WAN22_S2V", "s2v"),
    "wan_scail_2": _wan("WAN21_SCAIL2", "scail2", 20),
    "wan_vace": _wan("WAN21_Vace", "vace", vace_in_dim=96, vace_layers=8),
}  # fmt: skip
