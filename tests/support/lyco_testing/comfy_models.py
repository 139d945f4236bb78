"""Tiny models of ComfyUI's own classes, of the width of the golden adapters."""

import dataclasses
from typing import Any

import torch

WIDTH, BLOCKS = 64, 2

_FLUX = {
    "out_channels": 16,
    "context_in_dim": 48,
    "hidden_size": WIDTH,
    "num_heads": 2,
    "depth": BLOCKS,
    "depth_single_blocks": BLOCKS,
    "theta": 10000,
    "in_channels": 16,
}
_FLUX1 = _FLUX | {
    "image_model": "flux",
    "vec_in_dim": 24,
    "mlp_ratio": 4.0,
    "axes_dim": [8, 12, 12],
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_FLUX2 = _FLUX | {
    "image_model": "flux2",
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [8, 8, 8, 8],
    "patch_size": 1,
    "qkv_bias": False,
    "guidance_embed": False,
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
}
_HUNYUAN = {
    "image_model": "hunyuan_video",
    "in_channels": 16,
    "out_channels": 16,
    "context_in_dim": 48,
    "hidden_size": WIDTH,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": BLOCKS,
    "axes_dim": [8, 12, 12],
    "theta": 256,
    "patch_size": [1, 2, 2],
    "qkv_bias": True,
    "meanflow": False,
}
_HUNYUAN_VIDEO = _HUNYUAN | {
    "vec_in_dim": 24,
    "depth_single_blocks": BLOCKS,
    "guidance_embed": True,
    "byt5": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
_HUNYUAN_VIDEO_1_5 = _HUNYUAN | {
    "vec_in_dim": None,
    "depth_single_blocks": 0,
    "guidance_embed": False,
    "byt5": True,
    "use_cond_type_embedding": True,
    "vision_in_dim": 32,
    "meanflow_sum": True,
}
_QWEN = {
    "image_model": "qwen_image",
    "in_channels": 16,
    "num_layers": BLOCKS,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "axes_dims_rope": (8, 12, 12),
}
_WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": WIDTH,
    "ffn_dim": 160,
    "num_heads": 2,
    "num_layers": BLOCKS,
    "text_dim": 48,
    "in_dim": 16,
    "out_dim": 16,
}
_Z_IMAGE = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": WIDTH,
    "n_layers": BLOCKS,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "multiple_of": 2,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "qk_norm": True,
    "cap_feat_dim": 48,
    "axes_dims": [8, 12, 12],
    "axes_lens": [64, 64, 64],
    "z_image_modulation": True,
}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "flux1": ("Flux", _FLUX1),
    "flux2": ("Flux2", _FLUX2),
    "hunyuan_video": ("HunyuanVideo", _HUNYUAN_VIDEO),
    "hunyuan_video_1_5": ("HunyuanVideo15", _HUNYUAN_VIDEO_1_5),
    "framepack": ("HunyuanVideo", _HUNYUAN_VIDEO),
    "qwen_image": ("QwenImage", _QWEN),
    "wan": ("WAN21_T2V", _WAN),
    "z_image": ("ZImage", _Z_IMAGE),
}
"""Architecture -> class of comfy.supported_models, and the config that its detection would give."""


def known_config(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A config without what this ComfyUI's class does not know; skips where there is no such class."""
    import comfy.ldm.flux.model
    import comfy.ldm.hunyuan_video.model
    import comfy.supported_models

    if not hasattr(comfy.supported_models, name):
        import pytest  # where there are tests: benchmarks have these models too

        pytest.skip(f"this ComfyUI has no {name}")
    params = {
        "Flux": comfy.ldm.flux.model.FluxParams,
        "HunyuanVideo": comfy.ldm.hunyuan_video.model.HunyuanVideoParams,
        "HunyuanVideoI2V": comfy.ldm.hunyuan_video.model.HunyuanVideoParams,
    }.get(name)
    if params is None:
        return dict(config)
    known = {field.name for field in dataclasses.fields(params)} | {"image_model"}
    return {key: value for key, value in config.items() if key in known}


def tiny_model(architecture: str, dtype: torch.dtype = torch.float32):
    """A ModelPatcher around a model with random weights; FramePack's is HunyuanVideo's."""
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models

    name, config = MODELS[architecture]
    config = known_config(name, config)
    family = getattr(comfy.supported_models, name)(config)
    family.set_inference_dtype(dtype, None)
    family.custom_operations = comfy.ops.manual_cast
    model = family.get_model({})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def patched_weight(patcher, key: str) -> torch.Tensor:
    """A weight with the patcher's patches, computed by ComfyUI in float32."""
    import comfy.lora

    weight = patcher.model.state_dict()[key].float().clone()
    return comfy.lora.calculate_weight(patcher.patches[key], weight, key)
