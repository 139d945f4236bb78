"""All of diffusers' transformers: what is known is told right, and nothing else by its name.

Shapes are those of the classes themselves, which are built on the meta device for this.
"""

import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterator, Mapping

import pytest
import torch
from lyco_testing.families import without_numbers
from lyco_testing.tables import musubi_file, peft_file
from torch import nn

from lyco_core.adapter_set import AdapterSet
from lyco_core.architectures import identify
from lyco_core.errors import ArchitectureError
from lyco_core.formats import parse

transformers = pytest.importorskip("diffusers.models.transformers", reason="diffusers is not installed")

Shapes = Mapping[str, tuple[int, int]]

SIZES: dict[str, dict[str, object]] = {
    "ErnieImageTransformer2DModel": {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_layers": 36,
        "ffn_hidden_size": 12288,
    },
    "JoyImageEditTransformer3DModel": {"hidden_size": 4096, "num_attention_heads": 32, "num_layers": 40},
    "Kandinsky5Transformer3DModel": {"model_dim": 1792, "ff_dim": 7168, "num_visual_blocks": 32},
    "BriaTransformer2DModel": {"num_layers": 8, "num_single_layers": 28},
    "BriaFiboTransformer2DModel": {"num_layers": 8, "num_single_layers": 38},
    "LongCatImageTransformer2DModel": {"num_layers": 10, "num_single_layers": 20},
    "SD3Transformer2DModel": {"num_attention_heads": 24, "num_layers": 24, "caption_projection_dim": 1536},
    "HunyuanDiT2DModel": {
        "num_attention_heads": 16,
        "attention_head_dim": 88,
        "in_channels": 4,
        "patch_size": 2,
        "num_layers": 40,
        "cross_attention_dim": 1024,
        "hidden_size": 1408,
    },
    "HiDreamImageTransformer2DModel": {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 16,
        "num_single_layers": 32,
        "attention_head_dim": 128,
        "num_attention_heads": 20,
        "caption_channels": [4096, 4096],
    },
}
"""Class -> the configuration of a model that there is, where its own default is none."""

KNOWN = {
    "AceStepTransformer1DModel": {"ace_step_1_5"},
    "AuraFlowTransformer2DModel": {"auraflow"},
    "ChromaTransformer2DModel": {"chroma", "flux1"},
    "CogVideoXTransformer3DModel": {"cogvideox"},
    "CosmosTransformer3DModel": {"cosmos_1", "cosmos_predict2"},
    "ErnieImageTransformer2DModel": {"ernie_image"},
    "Flux2Transformer2DModel": {"flux2"},
    "Flux3Transformer2DModel": {"flux3"},
    "FluxTransformer2DModel": {"flux1", "chroma"},
    "HiDreamImageTransformer2DModel": {"hidream"},
    "HunyuanDiT2DModel": {"hunyuan_dit"},
    "HunyuanImageTransformer2DModel": {"hunyuan_image"},
    "HunyuanVideo15Transformer3DModel": {"hunyuan_video_1_5"},
    "HunyuanVideoFramepackTransformer3DModel": {"framepack", "hunyuan_video"},
    "HunyuanVideoTransformer3DModel": {"framepack", "hunyuan_video"},
    "Ideogram4Transformer2DModel": {"ideogram4"},
    "JoyImageEditTransformer3DModel": {"joyimage"},
    "Kandinsky5Transformer3DModel": {"kandinsky5"},
    "Krea2Transformer2DModel": {"krea2"},
    "LTX2VideoTransformer3DModel": {"ltx_2", "ltx_video"},
    "LTXVideoTransformer3DModel": {"ltx_video"},
    "LongCatImageTransformer2DModel": {"longcat_image", "flux1"},
    "Lumina2Transformer2DModel": {"lumina2"},
    "MiniMaxH3Transformer3DModel": {"minimax_h3"},
    "MiniMaxMusic3Transformer1DModel": {"minimax_music_3"},
    "MochiTransformer3DModel": {"mochi"},
    "PixArtTransformer2DModel": {"pixart"},
    "QwenImage21Transformer2DModel": {"qwen_image_2_1"},
    "QwenImageTransformer2DModel": {"qwen_image"},
    "SD3Transformer2DModel": {"sd3"},
    "WanAnimateTransformer3DModel": {"wan"},
    "WanTransformer3DModel": {"wan"},
    "WanVACETransformer3DModel": {"wan"},
    "ZImageTransformer2DModel": {"z_image"},
}
"""Class -> the families that its modules are of: several where they go onto the same weights in ComfyUI."""

DERIVED = {
    "AnyFlowFARTransformer3DModel": {"wan"},
    "AnyFlowTransformer3DModel": {"wan"},
    "ChronoEditTransformer3DModel": {"wan"},
    "ConsisIDTransformer3DModel": {"cogvideox"},
    "HeliosTransformer3DModel": {"wan"},
    "MotifVideoTransformer3DModel": {"framepack", "hunyuan_video"},
    "SanaWMLTX2RefinerTransformer3DModel": {"ltx_2", "ltx_video"},
    "SkyReelsV2Transformer3DModel": {"wan"},
}
"""Class -> the family whose blocks its own are, to the last shape: most of its models were trained from one."""


@pytest.fixture(scope="module")
def models() -> dict[str, Shapes]:
    """Class -> (out, in) of its Linears, by their paths."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without_numbers(patch)
        return {name: found for name, kind in classes() if (found := built(kind, SIZES.get(name, {})))}


def classes() -> Iterator[tuple[str, type[nn.Module]]]:
    for found in pkgutil.iter_modules(transformers.__path__):
        module = importlib.import_module(f"{transformers.__name__}.{found.name}")
        for name, kind in vars(module).items():
            if getattr(kind, "__module__", "") == module.__name__ and hasattr(kind, "load_config"):
                yield name, kind


def built(kind: type[nn.Module], size: dict[str, object]) -> Shapes:
    """Empty for a class that cannot be built without a configuration, of which none is known here."""
    try:
        with torch.device("meta"):
            model = kind(**size)
    except (TypeError, ValueError):
        return {}
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    return {name: (m.out_features, m.in_features) for name, m in linears.items() if m.out_features > 1}


PARTS = {
    "whole": (peft_file, r".*"),
    "attention": (peft_file, r".*\b(self_|cross_)?att\w*\..*"),
    "blocks": (musubi_file, r"(?!time|cond|caption|context_emb|text_emb).*\.\d+\..*"),
    "first stream": (musubi_file, r".*\.(to_q|to_k|to_v|to_out\.0)"),
}
"""What of a model is in a file -> how it is spelled, which modules."""


def test_no_name_is_a_neighbours(models: dict[str, Shapes]):
    assert len(models) > 60
    assert models.keys() >= KNOWN.keys() | DERIVED.keys()
    wrong: dict[tuple[str, str], str] = {}
    for name, shapes in models.items():
        files = {write: parse(write(shapes, "lora"), {}) for write in (peft_file, musubi_file)}
        for part, (write, pattern) in PARTS.items():
            spelled = zip(shapes, files[write].adapters, strict=True)
            others = {name: "of no part" for path, name in spelled if not re.fullmatch(pattern, path)}
            told = told_of(files[write].without(others))
            expected = KNOWN.get(name, set()) | DERIVED.get(name, set())
            missed = name in KNOWN and part == "blocks" and told is None
            if missed or (told is not None and told not in expected):
                wrong[name, part] = str(told)
    assert not wrong


def told_of(file: AdapterSet) -> str | None:
    """The family of a file; None where it is unknown or refused."""
    try:
        found = identify(file)
    except ArchitectureError:
        return None
    return found.architecture and found.architecture.id
