"""A tiny model of every family that the pack knows, and what a sampler gives it so that all of its Linears compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from lyco_core.architectures import ARCHITECTURES, Architecture
from lyco_core.layouts import Layout

from . import quantized_models
from .quantized_models import WIDTH, normal

TOKENS = 24


class Shape(tuple):
    """Of a random tensor, without its batch."""

    def __new__(cls, *sizes: int):
        return super().__new__(cls, sizes)


TEXT = Shape(TOKENS, WIDTH)

LATER = ("flux3", "qwen_image_2_1")
"""Families that are known by their published names: ComfyUI has no model of them yet."""


@dataclasses.dataclass(frozen=True)
class Tiny:
    """One model."""

    family: str
    """Of `ARCHITECTURES`."""
    model: str
    """Class of comfy.supported_models."""
    config: Mapping[str, Any]
    """What its detection would give."""
    latents: tuple[Shape, ...]
    """More than one where a model has several streams."""
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """As conditioning has it, beside the text's embedding."""
    text: Shape = TEXT
    layout: Layout = "comfyui"
    """Whose names the adapters have."""
    fixed: tuple[str, str, Mapping[str, Any]] | None = None
    """Module, name and sizes of a part that no config makes small."""
    layers: str | None = None
    """Module of a list of layers that no config makes short: one is enough."""
    idle: str = "(?!)"
    """Regular expression of modules that ComfyUI computes in no sampling."""
    unable: tuple[str, ...] = ()
    """Formats in which ComfyUI itself computes no such model."""

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.family]


_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "adm_in_channels": None, "model_channels": 64, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
_COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "model_channels": WIDTH, "concat_padding_mask": True, "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 64, "num_blocks": 1, "num_heads": 2,
}  # fmt: skip
_H3 = {
    "image_model": "minimax_h3", "num_layers": 1, "token_refiner_num_layers": 1, "hidden_size": 3 * WIDTH,
    "num_attention_heads": 8, "ffn_hidden_size": 8 * WIDTH, "text_dim": WIDTH,
}  # fmt: skip
_STREAMS = {
    "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True, "patch_size": 2,
    "hidden_size": WIDTH, "context_in_dim": WIDTH, "vec_in_dim": None, "depth": 1, "depth_single_blocks": 1,
}  # fmt: skip
_CHROMA = _STREAMS | {"in_dim": 64, "out_dim": WIDTH, "hidden_dim": WIDTH, "n_layers": 2, "txt_ids_dims": []}
_RADIANCE = _CHROMA | {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 64,
    "nerf_mlp_ratio": 4, "nerf_depth": 1, "nerf_max_freqs": 8, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32, "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
_CASCADE = {"c_r": 64, "c_cond": WIDTH}
_LTX = {"attention_head_dim": 128, "num_attention_heads": 2, "cross_attention_dim": WIDTH, "caption_channels": WIDTH}


def _musubi(name: str, latent: Shape, model: str | None = None, more: Mapping[str, Any] = {}, **given: Any) -> Tiny:
    """One of those that are quantized in every format elsewhere; their text has a width of its own."""
    found, config = quantized_models.config_of(name)
    return Tiny(name, model or found, config | more, (latent,), given, Shape(TOKENS, quantized_models.TEXT))


def models() -> dict[str, Tiny]:
    """Name -> model; a family has several where one has modules that another lacks."""
    vision = SimpleNamespace(
        penultimate_hidden_states=normal(5, 1, 8, 1280),
        last_hidden_state=normal(5, 1, 8, 32),
        image_embeds=normal(5, 1, 768),
    )
    return {
        "wan": _musubi(
            "wan",
            Shape(16, 2, 8, 8),
            "WAN21_I2V",
            {"model_type": "i2v", "in_dim": 36, "in_dim_ref_conv": 16},
            clip_vision_output=vision,
        ),
        "wan_vace": _musubi(
            "wan", Shape(16, 2, 8, 8), "WAN21_Vace", {"model_type": "vace", "vace_layers": 1, "vace_in_dim": 96}
        ),
        "wan_camera": _musubi(
            "wan",
            Shape(16, 2, 8, 8),
            "WAN21_Camera",
            {"model_type": "camera", "in_dim": 32},
            clip_vision_output=vision,
            camera_conditions=Shape(24, 2, 64, 64),
        ),
        "wan_humo": _musubi(
            "wan", Shape(16, 2, 8, 8), "WAN21_HuMo", {"model_type": "humo"}, audio_embed=Shape(2, 8, 5, 1280)
        ),
        "wan_s2v": _musubi(
            "wan",
            Shape(16, 2, 8, 8),
            "WAN22_S2V",
            {"model_type": "s2v", "audio_inject_layers": [0]},
            audio_embed=Shape(25, 1024, 8),
        ),
        "wan_animate": _musubi(
            "wan",
            Shape(16, 2, 8, 8),
            "WAN22_Animate",
            {"model_type": "animate", "in_dim": 36, "num_layers": 5},
            clip_vision_output=vision,
            face_video_pixels=Shape(3, 1, 512, 512),  # halved seven times
        ),
        "wan_scail": _musubi(
            "wan", Shape(16, 2, 8, 8), "WAN21_SCAIL2", {"model_type": "scail2", "in_dim": 20}, clip_vision_output=vision
        ),
        "wan_dancer": dataclasses.replace(
            _musubi(
                "wan",
                Shape(16, 2, 8, 8),
                "WAN22_WanDancer",
                {"model_type": "wandancer", "in_dim": 36, "audio_inject_layers": [0]},
                clip_vision_output=vision,
                clip_vision_output_ref=vision,
                audio_embed=Shape(12, 35),
            ),
            idle=r"head_global\.head",  # of other frame rates
        ),
        "flux1": _musubi("flux1", Shape(16, 8, 8), pooled_output=Shape(24), guidance=3.5),
        "flux2": _musubi("flux2", Shape(128, 4, 4), None, {"guidance_embed": True}, guidance=3.5),
        "hunyuan_video": _musubi("hunyuan_video", Shape(16, 2, 8, 8), pooled_output=Shape(24), guidance=3.5),
        "framepack": dataclasses.replace(
            _musubi("framepack", Shape(16, 2, 8, 8), pooled_output=Shape(24), guidance=3.5), layout="diffusers"
        ),
        "hunyuan_video_1_5": _musubi(
            "hunyuan_video_1_5",
            Shape(32, 2, 4, 4),
            pooled_output=None,
            conditioning_byt5small=Shape(6, 1472),
            clip_vision_output=vision,
        ),
        "hunyuan_video_1_5_distilled": _musubi(
            "hunyuan_video_1_5",
            Shape(32, 2, 4, 4),
            more={"meanflow": True},
            pooled_output=None,
            conditioning_byt5small=Shape(6, 1472),
            clip_vision_output=vision,
        ),
        "qwen_image": _musubi("qwen_image", Shape(16, 1, 8, 8)),
        "z_image": _musubi("z_image", Shape(16, 8, 8)),
        "kandinsky5": Tiny(
            "kandinsky5",
            "Kandinsky5",
            {
                "image_model": "kandinsky5", "model_dim": WIDTH, "ff_dim": 4 * WIDTH, "time_dim": WIDTH,
                "in_text_dim": WIDTH, "in_text_dim2": WIDTH, "visual_embed_dim": 132, "num_text_blocks": 1,
                "num_visual_blocks": 1, "axes_dims": (16, 24, 24),
            },
            (Shape(16, 2, 8, 8),),
            {"pooled_output": Shape(WIDTH)},
        ),
        "sdxl": Tiny(
            "sdxl",
            "SDXL",
            _UNET | {
                "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
                "channel_mult": [1, 4, 1], "transformer_depth": [0, 0, 1, 1, 1, 1], "transformer_depth_middle": 1,
                "num_head_channels": 64, "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
                "use_linear_in_transformer": True, "context_dim": 2048,
            },
            (Shape(4, 16, 16),),
            {"pooled_output": Shape(1280)},
            Shape(TOKENS, 2048),
        ),
        "sd15": Tiny(
            "sd15",
            "SD21UnclipL",  # which has an embedding of a vector, and projections that are Linears
            _UNET | {
                "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 1, 4, 1], "context_dim": 1024,
                "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
                "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "num_head_channels": 64,
                "use_linear_in_transformer": True, "adm_in_channels": 1536, "num_classes": "sequential",
            },
            (Shape(4, 16, 16),),
            {"unclip_conditioning": [{"clip_vision_output": vision, "strength": 1.0, "noise_augmentation": 0.0}]},
            Shape(TOKENS, 1024),
        ),
        "sd3": Tiny(
            "sd3",
            "SD3",
            {
                "in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 4, "input_size": None,
                "qk_norm": "rms", "adm_in_channels": WIDTH, "pos_embed_scaling_factor": None, "num_patches": 256,
                "pos_embed_max_size": 16, "x_block_self_attn_layers": [0, 1],
                "context_embedder_config": {
                    "target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": WIDTH},
                },
            },
            (Shape(16, 8, 8),),
            {"pooled_output": Shape(WIDTH)},
        ),
        "chroma": Tiny(
            "chroma",
            "Chroma",
            _CHROMA | {"image_model": "chroma", "in_channels": 64, "out_channels": 64},
            (Shape(16, 8, 8),),
        ),
        "chroma_radiance": Tiny("chroma", "ChromaRadiance", _RADIANCE, (Shape(3, 64, 64),)),
        "chroma_radiance_linear": Tiny(
            "chroma", "ChromaRadiance", _RADIANCE | {"nerf_final_head_type": "linear"}, (Shape(3, 64, 64),)
        ),
        "hidream": Tiny(
            "hidream",
            "HiDream",
            {
                "image_model": "hidream", "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32],
                "caption_channels": [WIDTH, WIDTH], "max_resolution": [16, 16], "in_channels": 16,
                "out_channels": 16, "llama_layers": [0, 1], "num_attention_heads": 2, "num_routed_experts": 4,
                "num_activated_experts": 4, "num_layers": 1, "num_single_layers": 1, "patch_size": 2,
                "text_emb_dim": WIDTH,
            },
            (Shape(16, 8, 8),),
            {"pooled_output": Shape(WIDTH), "conditioning_llama3": Shape(2, TOKENS, WIDTH)},
        ),
        "ltx_video": Tiny(
            "ltx_video",
            "LTXV",
            _LTX | {"image_model": "ltxv", "num_layers": 2},
            (Shape(128, 2, 4, 4),),
            {"attention_mask": torch.ones(1, TOKENS)},
        ),
        "ltx_2": Tiny(
            "ltx_2",
            "LTXAV",
            _LTX | {
                "image_model": "ltxav", "num_layers": 1, "audio_attention_head_dim": 64,
                "audio_num_attention_heads": 4, "audio_cross_attention_dim": WIDTH,
                "connector_attention_head_dim": 128, "connector_num_attention_heads": 2, "connector_num_layers": 1,
            },
            (Shape(128, 2, 4, 4), Shape(8, 6, 16)),
        ),
        "ltx_2_3": Tiny(
            "ltx_2",
            "LTXAV",
            _LTX | {
                "image_model": "ltxav", "num_layers": 1, "audio_attention_head_dim": 64,
                "audio_num_attention_heads": 4, "audio_cross_attention_dim": WIDTH,
                "connector_attention_head_dim": 128, "connector_num_attention_heads": 2, "connector_num_layers": 1,
                "connector_apply_gated_attention": True, "apply_gated_attention": True, "cross_attention_adaln": True,
                "caption_proj_before_connector": True, "caption_projection_first_linear": False,
                "caption_projection_second_linear": False,
            },
            (Shape(128, 2, 4, 4), Shape(8, 6, 16)),
        ),
        "lumina2": Tiny(
            "lumina2",
            "Lumina2",
            {
                "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "qk_norm": True, "dim": 3 * WIDTH,
                "axes_lens": [300, 512, 512], "cap_feat_dim": WIDTH, "n_layers": 1, "n_refiner_layers": 1,
                "n_heads": 6, "n_kv_heads": 2, "axes_dims": [32, 48, 48], "ffn_dim_multiplier": 0.5,
            },
            (Shape(16, 8, 8),),
        ),
        "krea2": Tiny(
            "krea2",
            "Krea2",
            {
                "image_model": "krea2", "features": WIDTH, "layers": 1, "heads": 4, "kvheads": 1, "channels": 16,
                "patch": 2, "txtlayers": 3, "txtdim": WIDTH, "txtheads": 2, "txtkvheads": 2,
            },
            (Shape(16, 8, 8),),
            {},
            Shape(TOKENS, 3 * WIDTH),
        ),
        "auraflow": Tiny(
            "auraflow",
            "AuraFlow",
            {
                "max_seq": 256, "cond_seq_dim": WIDTH, "n_double_layers": 1, "n_layers": 2, "dim": WIDTH,
                "n_heads": 2, "global_conddim": WIDTH,
            },
            (Shape(4, 8, 8),),
        ),
        "pixart": Tiny(
            "pixart",
            "PixArtAlpha",
            {
                "image_model": "pixart_alpha", "micro_condition": True, "num_heads": 6, "patch_size": 2,
                "hidden_size": 3 * WIDTH, "in_channels": 4, "depth": 1, "input_size": 16, "caption_channels": WIDTH,
            },
            (Shape(4, 48, 48),),  # of smaller ones it divides by nothing
            {"width": 64, "height": 64},
        ),
        "hunyuan_dit": Tiny(
            "hunyuan_dit",
            "HunyuanDiT",
            {
                "image_model": "hydit", "depth": 4, "hidden_size": WIDTH, "mlp_ratio": 2.0, "num_heads": 2,
                "text_states_dim": WIDTH, "text_states_dim_t5": WIDTH,
            },
            (Shape(4, 8, 8),),
            {
                "conditioning_mt5xl": Shape(256, WIDTH), "attention_mask": torch.ones(1, 77),
                "attention_mask_mt5xl": torch.ones(1, 256),
            },
            Shape(77, WIDTH),
        ),
        "omnigen2": Tiny(
            "omnigen2",
            "Omnigen2",
            {
                "image_model": "omnigen2", "axes_dim_rope": [32, 48, 48], "axes_lens": [64, 64, 64], "patch_size": 2,
                "ffn_dim_multiplier": None, "hidden_size": WIDTH, "in_channels": 16, "multiple_of": WIDTH,
                "norm_eps": 1e-5, "num_attention_heads": 2, "num_kv_heads": 1, "num_layers": 1,
                "num_refiner_layers": 1, "out_channels": None, "text_feat_dim": WIDTH, "timestep_scale": 1000.0,
            },
            (Shape(16, 8, 8),),
            {"reference_latents": [Shape(16, 8, 8)], "attention_mask": torch.ones(1, TOKENS, dtype=torch.int)},
        ),
        "ace_step": Tiny(
            "ace_step",
            "ACEStep",
            {
                "audio_model": "ace", "attention_head_dim": 128, "in_channels": 8, "inner_dim": WIDTH,
                "max_height": 16, "max_position": 4096, "max_width": 4096, "mlp_ratio": 2.5,
                "num_attention_heads": 2, "num_layers": 1, "out_channels": 8, "patch_size": [16, 1],
                "rope_theta": 1e6, "speaker_embedding_dim": 512, "text_embedding_dim": WIDTH,
                "ssl_encoder_depths": [8, 8], "ssl_latent_dims": [WIDTH, WIDTH], "ssl_names": ["mert", "m-hubert"],
                "lyric_encoder_vocab_size": 64, "lyric_hidden_size": WIDTH,
            },
            (Shape(8, 16, 24),),
            {"conditioning_lyrics": torch.arange(12)[None]},
            fixed=(
                "comfy.ldm.ace.model",
                "LyricEncoder",
                {"output_size": WIDTH, "attention_heads": 2, "linear_units": WIDTH, "num_blocks": 1},
            ),
            idle=r"projectors\..*|.*cross_attn\.(add_[qkv]_proj|to_add_out)",
        ),
        "ace_step_1_5": Tiny(
            "ace_step_1_5",
            "ACEStep15",
            {
                "audio_model": "ace1.5", "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_heads": 2,
                "num_kv_heads": 1, "num_dit_layers": 2, "encoder_hidden_size": WIDTH, "encoder_num_heads": 2,
                "encoder_intermediate_size": WIDTH, "text_hidden_dim": WIDTH, "num_lyric_layers": 1,
                "num_timbre_layers": 1, "num_tokenizer_layers": 1, "fsq_dim": WIDTH,
            },
            (Shape(64, 20),),
            {"conditioning_lyrics": Shape(12, WIDTH)},
        ),
        "cosmos_predict2": Tiny(
            "cosmos_predict2", "CosmosT2IPredict2", _COSMOS | {"image_model": "cosmos_predict2"}, (Shape(16, 1, 8, 8),)
        ),
        "anima": Tiny(
            "cosmos_predict2",
            "Anima",
            _COSMOS | {"image_model": "anima"},
            (Shape(16, 1, 8, 8),),
            {"t5xxl_ids": torch.arange(12), "t5xxl_weights": torch.ones(12)},
            fixed=(
                "comfy.ldm.anima.model",
                "LLMAdapter",
                {"source_dim": WIDTH, "target_dim": WIDTH, "model_dim": WIDTH, "num_layers": 1, "num_heads": 2},
            ),
        ),
        "minimax_h3": Tiny(
            "minimax_h3",
            "MiniMaxH3",
            _H3 | {"timestep_input_dim": 64, "time_embed_hidden_size": WIDTH, "time_embed_dim": WIDTH},
            (Shape(24, 2, 4, 4), Shape(32, 2, 6)),
            unable=("fp8_raw",),  # its kernel takes no norm so
        ),
        "minimax_h3_curve": Tiny(
            "minimax_h3",
            "MiniMaxH3",
            _H3 | {"adaln_curve_grid": 32, "time_embed_dim": 16},
            (Shape(24, 2, 4, 4), Shape(32, 2, 6)),
            unable=("fp8_raw",),  # its kernel takes no norm so
        ),
        "minimax_music_3": Tiny(
            "minimax_music_3",
            "MiniMaxMusic3",
            {"audio_model": "minimax_music3"},
            (Shape(128, 8),),
            {"conditioning_scale": torch.ones(1, 1, 1)},
            Shape(4, 8 * 4096),
            layers="comfy.ldm.minimax_music.dit",
        ),
        "mochi": Tiny(
            "mochi",
            "GenmoMochi",
            {
                "image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 4,
                "hidden_size_x": 2 * WIDTH, "hidden_size_y": WIDTH, "mlp_ratio_y": 4.0,
                "mlp_ratio_x": 12288 / (2 * WIDTH),  # which it asserts
                "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
                "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True,
                "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0, "use_t5": True,
                "t5_feat_dim": WIDTH, "t5_token_length": TOKENS, "rope_theta": 10000.0,
            },
            (Shape(12, 2, 8, 8),),
            {"attention_mask": torch.ones(1, TOKENS, dtype=torch.int)},
        ),
        "cogvideox": Tiny(
            "cogvideox",
            "CogVideoX_I2V",
            {
                "image_model": "cogvideox", "num_attention_heads": 4, "attention_head_dim": 64,
                "time_embed_dim": WIDTH, "num_layers": 1, "in_channels": 32, "patch_size": 2, "patch_size_t": 2,
                "text_embed_dim": WIDTH, "ofs_embed_dim": WIDTH, "use_learned_positional_embeddings": False,
                "use_rotary_positional_embeddings": True,
            },
            (Shape(16, 2, 8, 8),),
        ),
        "cosmos_1": Tiny(
            "cosmos_1",
            "CosmosT2V",
            _COSMOS | {
                "image_model": "cosmos", "block_config": "FA-CA-MLP", "block_x_format": "THWBD",
                "affline_emb_norm": True, "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
                "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
                "rope_h_extrapolation_ratio": 1.0, "rope_w_extrapolation_ratio": 1.0,
                "rope_t_extrapolation_ratio": 2.0,
            },
            (Shape(16, 1, 8, 8),),
        ),
        "ernie_image": Tiny(
            "ernie_image",
            "ErnieImage",
            {
                "image_model": "ernie", "hidden_size": WIDTH, "num_attention_heads": 2, "num_layers": 1,
                "ffn_hidden_size": 3 * WIDTH, "text_in_dim": 2 * WIDTH, "rope_axes_dim": (32, 48, 48),
            },
            (Shape(128, 4, 4),),
            {},
            Shape(TOKENS, 2 * WIDTH),
        ),
        "ideogram4": Tiny(
            "ideogram4",
            "Ideogram4",
            {
                "image_model": "ideogram4", "in_channels": 128, "num_layers": 1, "num_attention_heads": 1,
                "attention_head_dim": WIDTH, "intermediate_size": 2 * WIDTH, "llm_features_dim": WIDTH,
            },
            (Shape(128, 4, 4),),
        ),
        "hidream_o1": Tiny(
            "hidream_o1",
            "HiDreamO1",
            {
                "image_model": "hidream_o1",
                "text_config_overrides": {
                    "vocab_size": 151936, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH,
                    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128,
                },
                "vision_config_overrides": {
                    "hidden_size": WIDTH, "num_heads": 2, "intermediate_size": WIDTH, "depth": 1,
                },
            },
            (Shape(3, 64, 64),),
            {
                "text_input_ids": torch.tensor([[151644, 872, 151673, 151645]]),
                "reference_latents": [torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(5))],
            },
            unable=("fp8_raw",),  # the tower's positions are added as they are stored
        ),
        "hunyuan_image": Tiny(
            "hunyuan_image",
            "HunyuanImage21",
            _STREAMS | {
                "image_model": "hunyuan_video", "in_channels": 64, "out_channels": 64, "patch_size": [1, 1],
                "axes_dim": [64, 64], "guidance_embed": True, "byt5": True, "meanflow": True, "meanflow_sum": False,
                "use_cond_type_embedding": False, "vision_in_dim": None, "theta": 256,
            },
            (Shape(64, 4, 4),),
            {"conditioning_byt5small": Shape(6, 1472)},
        ),
        "longcat_image": Tiny(
            "longcat_image",
            "LongCatImage",
            _STREAMS | {
                "image_model": "flux", "in_channels": 16, "out_channels": 16, "txt_ids_dims": [1, 2],
                "guidance_embed": False,
            },
            (Shape(16, 8, 8),),
        ),
        "mage_flow": Tiny(
            "mage_flow",
            "MageFlow",
            {
                "image_model": "mage_flow", "in_channels": 128, "num_layers": 1, "num_attention_heads": 2,
                "attention_head_dim": 128, "joint_attention_dim": WIDTH,
            },
            (Shape(128, 4, 4),),
        ),
        "lens": Tiny(
            "lens",
            "Lens",
            {
                "image_model": "lens", "num_layers": 1, "attention_head_dim": 64, "num_attention_heads": 6,
                "enc_hidden_dim": 64, "selected_layer_index": (0, 1, 2, 3),
            },
            (Shape(128, 4, 4),),
        ),
        "joyimage": Tiny(
            "joyimage",
            "JoyImage",
            {
                "image_model": "joyimage", "in_channels": 16, "hidden_size": WIDTH, "patch_size": [1, 2, 2],
                "num_layers": 1, "num_attention_heads": 2, "text_dim": WIDTH,
            },
            (Shape(16, 1, 8, 8),),
        ),
        "boogu": Tiny(
            "boogu",
            "Boogu",
            {
                "image_model": "boogu", "hidden_size": 480, "num_layers": 1, "num_double_stream_layers": 1,
                "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 1, "multiple_of": WIDTH,
                "instruction_feat_dim": WIDTH,
            },
            (Shape(16, 8, 8),),
            {"reference_latents": [Shape(16, 8, 8)], "attention_mask": torch.ones(1, TOKENS, dtype=torch.int)},
        ),
        "sdxl_refiner": Tiny(
            "sdxl_refiner",
            "SDXLRefiner",
            _UNET | {
                "num_classes": "sequential", "adm_in_channels": 2560, "num_res_blocks": [2, 2, 2, 2],
                "channel_mult": [1, 2, 4, 1], "transformer_depth": [0, 0, 1, 1, 1, 1, 0, 0],
                "transformer_depth_middle": 1, "num_head_channels": 64, "use_linear_in_transformer": True,
                "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 1280,
            },
            (Shape(4, 16, 16),),
            {"pooled_output": Shape(1280)},
            Shape(TOKENS, 1280),
        ),
        "stable_cascade": Tiny(
            "stable_cascade",
            "Stable_Cascade_C",
            _CASCADE | {
                "stable_cascade_stage": "c", "c_hidden": [WIDTH, WIDTH], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]],
            },
            (Shape(16, 8, 8),),
            {"pooled_output": Shape(1, 1280)},
            Shape(TOKENS, 1280),
        ),
        "stable_cascade_b": Tiny(
            "stable_cascade_b",
            "Stable_Cascade_B",
            _CASCADE | {
                "stable_cascade_stage": "b", "c_hidden": [64, 128, WIDTH, WIDTH], "nhead": [-1, -1, 2, 2],
                "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]],
            },
            (Shape(4, 32, 32),),
            {"pooled_output": Shape(1, 1280), "stable_cascade_prior": Shape(16, 8, 8)},
        ),
    }  # fmt: skip
