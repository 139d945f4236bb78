"""Which models read an image beside the noise: told from the shapes that their files have."""

import pytest

from lyco_core.architectures.registry import ARCHITECTURES
from lyco_core.layouts import Layout
from lyco_core.model import Model
from lyco_core.train.image_inputs import image_input

WAN_I2V = {"patch_embedding": (5120, 36, 1, 2, 2), "head.head": (64, 5120)}
CASES = {
    "Wan 2.1 T2V": ("wan", {"patch_embedding": (5120, 16, 1, 2, 2), "head.head": (64, 5120)}, None),
    "Wan 2.1 and 2.2 I2V": ("wan", WAN_I2V, "concat_latent_image"),
    "Wan 2.1 Fun-Control": ("wan", WAN_I2V | {"patch_embedding": (5120, 48, 1, 2, 2)}, "concat_latent_image"),
    "Wan 2.2 Fun-Control": ("wan", WAN_I2V | {"patch_embedding": (5120, 52, 1, 2, 2)}, "concat_latent_image"),
    "Wan 2.2 TI2V 5B": ("wan", {"patch_embedding": (3072, 48, 1, 2, 2), "head.head": (192, 3072)}, None),
    "Wan VACE": (
        "wan",
        {"patch_embedding": (1536, 16, 1, 2, 2), "head.head": (64, 1536), "vace_patch_embedding": (1536, 96, 1, 2, 2)},
        "vace_frames",
    ),
    "HuMo 17B": ("wan", WAN_I2V | {"audio_proj.audio_proj_glob_1.layer": (512, 40960)}, None),
    "FLUX.1 dev": ("flux1", {"img_in": (3072, 64), "final_layer.linear": (64, 3072)}, None),
    "FLUX.1 Canny": ("flux1", {"img_in": (3072, 128), "final_layer.linear": (64, 3072)}, "concat_latent_image"),
    "FLUX.1 Fill": ("flux1", {"img_in": (3072, 384), "final_layer.linear": (64, 3072)}, "concat_latent_image"),
    "HunyuanVideo": ("hunyuan_video", {"img_in.proj": (3072, 16, 1, 2, 2), "final_layer.linear": (64, 3072)}, None),
    "HunyuanVideo I2V": (
        "hunyuan_video",
        {"img_in.proj": (3072, 33, 1, 2, 2), "final_layer.linear": (64, 3072)},
        "concat_latent_image",
    ),
    "HunyuanVideo 1.5": (
        "hunyuan_video_1_5",
        {"img_in.proj": (2048, 65, 1, 1, 1), "final_layer.linear": (32, 2048)},
        None,
    ),
    "a part of a model": ("wan", {"patch_embedding": (5120, 36, 1, 2, 2)}, None),
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("layout", ["comfyui", "diffusers"])
@pytest.mark.parametrize("name", CASES)
def test_what_a_model_reads(name: str, layout: Layout, prefix: str):
    architecture, shapes, expected = CASES[name]
    family = ARCHITECTURES[architecture]
    named = {}
    for path, shape in shapes.items():
        located = family.locate(path, "comfyui", layout) if path in family.templates("comfyui") else []
        there = located[0].path if located else path
        named[f"{prefix}{there}.weight"] = shape
    assert image_input(Model(named, prefix, family, layout)) == expected


def test_models_of_no_such_family():
    assert image_input(Model({}, "", None, "comfyui")) is None
    assert image_input(Model({}, "", ARCHITECTURES["qwen_image"], "comfyui")) is None
