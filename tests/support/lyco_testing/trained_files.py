"""A tiny model of every family that Musubi trains, and all that trains it, as the files that a person has."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .comfy_models import MODELS, known_config
from .quantized_models import unit_gain
from .told_sizes import SIZES, VISION

__all__ = ["FAMILIES", "FEATURES", "TEXT", "Family", "write_encoders", "write_model"]

TEXT = 768
"""What CLIP-L makes of a token: the one text encoder of ComfyUI's that is not gigabytes."""
FEATURES = 53248
"""What Ideogram 4 reads of a token, by which it is told from other families: thirteen layers of its text encoder."""

_AXES = [16, 56, 56]
_HUNYUAN = {"hidden_size": 128, "num_heads": 1, "axes_dim": _AXES, "context_in_dim": TEXT}
_QWEN = {"in_channels": 64, "joint_attention_dim": TEXT}
_WAN = MODELS["wan"][1] | {"text_dim": TEXT}
_KREA2 = {
    "image_model": "krea2", "features": 384, "layers": 2, "heads": 4, "kvheads": 1, "channels": 16, "patch": 2,
    "txtlayers": 3, "txtdim": 256, "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip
_IDEOGRAM4 = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 2, "num_attention_heads": 3,
    "attention_head_dim": 128, "intermediate_size": 1024, "llm_features_dim": FEATURES,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of model, and how it is trained here."""

    architecture: str
    model: str
    """Class of comfy.supported_models."""
    config: Mapping[str, Any]
    script: str
    """Musubi's, which trains it."""
    algorithm: str
    vae: str
    """Of `write_encoders`."""
    media: str = "pictures"
    """pictures, edits (with control images) or clips."""
    vision: str = ""
    """Of `write_encoders`: what sees the first frame."""
    more: tuple[str, ...] = ()
    """Options."""
    told: bool = True
    """Whether ComfyUI has to be told the sizes, or detects them."""
    two: bool = False
    """Whether there is a second model, for high noise."""
    cached: bool = False
    """Whether no text encoder is small enough, and captions are in the cache beforehand."""

    @property
    def reads_first_frame(self) -> bool:
        return self.media == "clips" and "i2v" in " ".join(self.more)


def _of(architecture: str, script: str, algorithm: str, vae: str, **more: Any) -> Family:
    name, config = MODELS[architecture]
    return Family(
        architecture, more.pop("model", name), config | more.pop("config", {}), script, algorithm, vae, **more
    )


FAMILIES: dict[str, Family] = {
    "HunyuanVideo": _of(
        "hunyuan_video", "hv", "loha", "video16", config=_HUNYUAN | {"vec_in_dim": TEXT}, media="clips", told=False
    ),
    "HunyuanVideo 1.5, first frames": _of(
        "hunyuan_video_1_5", "hv_1_5", "lokr", "video32",
        config=_HUNYUAN | {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vision_in_dim": 1152},
        media="clips", vision="siglip", more=("--task", "i2v"), told=False,
    ),
    "Wan 2.1": _of("wan", "wan", "lora", "video16", config=_WAN, media="clips", more=("--task", "t2v-1.3B")),
    "Wan 2.1, first frames": _of(
        "wan", "wan", "lokr", "video16", model="WAN21_I2V", config=_WAN | {"model_type": "i2v", "in_dim": 36},
        media="clips", vision="clip_h", more=("--task", "i2v-14B"),
    ),
    "Wan 2.2, two models, first frames": _of(
        "wan", "wan", "loha", "video16", config=_WAN | {"in_dim": 36}, media="clips", two=True,
        more=("--task", "i2v-A14B", "--timestep_boundary", "600"),
    ),
    "FLUX.1 Kontext": _of(
        "flux1", "flux_kontext", "lokr", "image16",
        config=_HUNYUAN | {"vec_in_dim": TEXT}, media="edits", told=False,
    ),
    "FLUX.2": _of(
        "flux2", "flux_2", "loha", "image128",
        config={"hidden_size": 128, "num_heads": 1, "axes_dim": [32] * 4, "theta": 2000, "context_in_dim": TEXT,
                "in_channels": 128, "out_channels": 128, "default_ref_method": "index", "ref_index_scale": 10.0},
        media="edits", told=False, more=("--model_version", "klein-base-4b"),
    ),
    "Qwen-Image": _of("qwen_image", "qwen_image", "lora", "video16", config=_QWEN),
    "Qwen-Image-Edit": _of(
        "qwen_image", "qwen_image", "lokr", "video16", config=_QWEN, media="edits", more=("--model_version", "edit")
    ),
    "Z-Image": _of(
        "z_image", "zimage", "loha", "image16",
        config={"cap_feat_dim": TEXT, "dim": 256, "multiple_of": 256, "axes_dims": [32, 48, 48]},
    ),
    "Krea 2": Family("krea2", "Krea2", _KREA2, "krea2", "lora", "video16"),
    "Ideogram 4": Family("ideogram4", "Ideogram4", _IDEOGRAM4, "ideogram4", "lokr", "image128", cached=True),
}  # fmt: skip
"""What Musubi calls a family -> a tiny one."""


def write_model(family: Family, path: Path, seed: int = 0) -> dict[str, Tensor]:
    """A model's file in ComfyUI's layout; what is in it."""
    import comfy.ops
    import comfy.supported_models
    from safetensors.torch import save_file

    config = known_config(family.model, dict(family.config))
    known = getattr(comfy.supported_models, family.model)
    extra = {key: value for key, value in known.unet_extra_config.items() if key not in config}
    made = type(family.model, (known,), {"unet_extra_config": extra})(config)
    made.set_inference_dtype(torch.float32, None)
    made.custom_operations = comfy.ops.manual_cast
    state = unit_gain(made.get_model({}, device="meta").diffusion_model.state_dict())
    weights = {key: (value.roll(seed, 0) if seed else value).contiguous() for key, value in state.items()}
    told = {SIZES: json.dumps([family.model, config])} if family.told else None
    save_file(weights, path, told)
    return weights


def write_encoders(folder: Path) -> None:
    """VAEs, CLIP-L and image encoders with random weights, each named as `Family` names it."""
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.latent_formats
    import comfy.ldm.models.autoencoder
    import comfy.ops
    import comfy.sd1_clip
    import comfy.taesd.taehv
    import comfy.taesd.taesd
    from safetensors.torch import save_file

    def save(name: str, module: torch.nn.Module | Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        state = module.state_dict() if isinstance(module, torch.nn.Module) else module
        made = {key: value.to(dtype) for key, value in unit_gain(state).items()}
        save_file(made, folder / f"{name}.safetensors")

    taehv, formats = comfy.taesd.taehv.TAEHV, comfy.latent_formats
    save("image16", comfy.taesd.taesd.TAESD(latent_channels=16))
    save("video16", taehv(latent_channels=16, latent_format=None))
    save("video32", taehv(latent_channels=32, latent_format=formats.HunyuanVideo15))
    sizes = {"double_z": True, "z_channels": 32, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    sizes |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    sizes |= {"batch_norm_latent": True}
    with torch.device("meta"):
        flux2 = comfy.ldm.models.autoencoder.AutoencoderKL(
            ddconfig=sizes, embed_dim=32, decoder_ddconfig=sizes | {"ch": 32}
        )
        config = json.loads((Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_clip_config.json").read_text())
        clip = comfy.clip_model.CLIPTextModel(config, torch.float16, "meta", comfy.ops.manual_cast)
    normal = {
        key: value.abs() if key.endswith("var") else value for key, value in unit_gain(flux2.state_dict()).items()
    }
    save_file({key: value.half() for key, value in normal.items()}, folder / "image128.safetensors")
    save("clip_l", clip, torch.float16)
    for name, (found, mark) in {
        "clip_h": ("clip_vision_config_h.json", 30),
        "siglip": ("clip_vision_siglip_384.json", 22),
    }.items():
        eye = comfy.clip_vision.ClipVisionModel(VISION[found]).model.state_dict()
        # By a layer with this number ComfyUI tells what it is.
        eye[f"vision_model.encoder.layers.{mark}.layer_norm1.weight"] = torch.zeros(1)
        save(name, eye)
