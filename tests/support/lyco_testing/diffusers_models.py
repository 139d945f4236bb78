"""diffusers' own models, tiny, and what Musubi would train of them."""

import pytest
import torch

from lyco_core.architectures import ARCHITECTURES

from .tables import ARCHITECTURE_OF, targets

__all__ = ["FULL_SIZE", "MODELS", "musubi_targets", "tiny"]

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")

HEADS = {"num_attention_heads": 2, "attention_head_dim": 32}
ROPE = (8, 12, 12)
POOLED = {"num_single_layers": 2, "pooled_projection_dim": 24}
HUNYUAN = HEADS | {"num_layers": 2, "num_refiner_layers": 1, "text_embed_dim": 48, "rope_axes_dim": ROPE}
MODELS = {
    "flux1": ("FluxTransformer2DModel", HEADS | {
        "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 48, "pooled_projection_dim": 24,
        "in_channels": 16, "axes_dims_rope": ROPE,
    }),
    "flux2": ("Flux2Transformer2DModel", HEADS | {
        "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 48, "in_channels": 16,
        "axes_dims_rope": (8, 8, 8, 8),
    }),
    "wan": ("WanTransformer3DModel", HEADS | {"num_layers": 2, "text_dim": 48, "ffn_dim": 160}),
    "hunyuan_video": ("HunyuanVideoTransformer3DModel", HUNYUAN | POOLED),
    "hunyuan_video_1_5": ("HunyuanVideo15Transformer3DModel", HUNYUAN | {
        "text_embed_2_dim": 40, "image_embed_dim": 32,
    }),
    "framepack": ("HunyuanVideoFramepackTransformer3DModel", HUNYUAN | POOLED),
    "qwen_image": ("QwenImageTransformer2DModel", HEADS | {
        "num_layers": 2, "joint_attention_dim": 48, "in_channels": 16, "axes_dims_rope": ROPE,
    }),
    "z_image": ("ZImageTransformer2DModel", {
        "dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 48,
        "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64],
    }),
}  # fmt: skip
FULL_SIZE = {architecture: model for model, architecture in ARCHITECTURE_OF.items()} | {"wan": "wan21_t2v_1_3b"}


def tiny(architecture: str) -> torch.nn.Module:
    name, config = MODELS[architecture]
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    torch.manual_seed(0)
    return getattr(diffusers, name)(**config)


def musubi_targets(architecture: str, model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Musubi's targets of the first two blocks, as large as the model's modules are."""
    modules = dict(model.named_modules())
    family = ARCHITECTURES[architecture]
    shapes: dict[str, tuple[int, int]] = {}
    for path in targets(FULL_SIZE[architecture]):
        found = [modules.get(t.path) for t in family.locate(path, "musubi", "diffusers")]
        if found and None not in found:
            shapes[path] = (sum(m.out_features for m in found), found[0].in_features)
    return shapes
