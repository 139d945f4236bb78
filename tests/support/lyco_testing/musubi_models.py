"""Musubi Tuner's own models, as small as those of `trained_files`, and its merging; $MUSUBI_PATH names a checkout."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from .trained_files import TEXT, Family

__all__ = ["merged", "musubi_model", "musubi_module", "musubi_modules"]


def musubi_module(name: str) -> Any:
    """A module of the checkout's."""
    source = str(Path(os.environ["MUSUBI_PATH"]) / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    # Wan's package imports what its text encoder needs, which no one asks here: ftfy, and a GPU for a default value.
    lacks = "ftfy" not in sys.modules and importlib.util.find_spec("ftfy") is None
    if lacks:
        sys.modules["ftfy"] = ModuleType("ftfy")
    try:
        with mock.patch.object(torch.cuda, "current_device", lambda: 0):
            return importlib.import_module(f"musubi_tuner.{name}")
    finally:
        if lacks:
            del sys.modules["ftfy"]


def _flux(family: Family) -> nn.Module:
    found = musubi_module("flux.flux_models")
    sizes = {name: family.config[name] for name in found.FluxParams.__annotations__}
    return found.Flux(found.FluxParams(**sizes))


def _flux2(family: Family) -> nn.Module:
    found, config = musubi_module("flux_2.flux2_models"), family.config
    names = ("in_channels", "context_in_dim", "hidden_size", "num_heads", "depth", "depth_single_blocks", "axes_dim")
    sizes = {name: config[name] for name in names}
    return found.Flux2(found.Flux2Params(**sizes, use_guidance_embed=config["guidance_embed"]))


def _hunyuan(family: Family) -> nn.Module:
    config = family.config
    return musubi_module("hunyuan_model.models").HYVideoDiffusionTransformer(
        text_states_dim=TEXT,
        text_states_dim_2=TEXT,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        hidden_size=config["hidden_size"],
        heads_num=config["num_heads"],
        mm_double_blocks_depth=config["depth"],
        mm_single_blocks_depth=config["depth_single_blocks"],
        attn_mode="torch",
    )


def _hunyuan_1_5(family: Family) -> nn.Module:
    """Its sizes are fixed: it has the full widths, which its modules' names do not tell."""
    found = musubi_module("hunyuan_video_1_5.hunyuan_video_1_5_models").HunyuanVideo_1_5_DiffusionTransformer("i2v")
    found.double_blocks = found.double_blocks[: family.config["depth"]]
    return found


def _wan(family: Family) -> nn.Module:
    names = ("model_type", "dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "in_dim", "out_dim")
    sizes = {name: family.config[name] for name in names}
    return musubi_module("wan.modules.model").WanModel(**sizes, attn_mode="torch")


def _qwen(family: Family) -> nn.Module:
    sizes = {name: value for name, value in family.config.items() if name != "image_model"}
    return musubi_module("qwen_image.qwen_image_model").QwenImageTransformer2DModel(**sizes)


def _z_image(family: Family) -> nn.Module:
    names = ("in_channels", "dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "cap_feat_dim")
    names += ("axes_dims", "axes_lens")
    sizes = {name: family.config[name] for name in names}
    return musubi_module("zimage.zimage_model").ZImageTransformer2DModel(**sizes)


def _krea2(family: Family) -> nn.Module:
    found, names = musubi_module("krea2.krea2_mmdit"), ("image_model",)
    sizes = {name: value for name, value in family.config.items() if name not in names}
    return found.SingleStreamDiT(found.SingleMMDiTConfig(**sizes, tdim=256, multiplier=4))


def _ideogram4(family: Family) -> nn.Module:
    found, config = musubi_module("ideogram4.ideogram4_model"), family.config
    heads = config["num_attention_heads"]
    sizes = {name: config[name] for name in ("num_layers", "intermediate_size", "llm_features_dim")}
    return found.Ideogram4Transformer(
        found.Ideogram4Config(**sizes, num_heads=heads, emb_dim=heads * config["attention_head_dim"])
    )


_MODELS = {
    "flux1": _flux,
    "flux2": _flux2,
    "hunyuan_video": _hunyuan,
    "hunyuan_video_1_5": _hunyuan_1_5,
    "wan": _wan,
    "qwen_image": _qwen,
    "z_image": _z_image,
    "krea2": _krea2,
    "ideogram4": _ideogram4,
}


def musubi_model(family: Family) -> nn.Module:
    """Musubi's own model, without numbers."""
    with torch.device("meta"):
        return _MODELS[family.architecture](family)


def musubi_modules(family: Family) -> dict[str, str]:
    """What the network that Musubi's script makes by default trains: name in a file -> module."""
    model = musubi_model(family)
    network = family.algorithm
    if network == "lora" or family.architecture in ("krea2", "ideogram4"):  # which its LoHa and LoKr know not
        network = {"hv": "lora", "flux_kontext": "lora_flux"}.get(family.script, f"lora_{family.script}")
    made = musubi_module(f"networks.{network}").create_arch_network(1.0, 4, 2, None, [], model)
    names = {name.replace(".", "_"): name for name, _ in model.named_modules()}
    return {lora.lora_name: names[lora.lora_name.removeprefix("lora_unet_")] for lora in made.unet_loras}


def merged(base: Path, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file of Musubi's names with an adapter merged by Musubi as it loads them.

    Raises `AssertionError` if Musubi leaves something of the adapter over.
    """
    merging = musubi_module("utils.lora_utils")
    left: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: left.append(record.getMessage())
    merging.logger.addHandler(handler)
    try:
        found = merging.load_safetensors_with_lora_and_fp8(
            str(base), [dict(adapter)], [1.0], False, torch.device("cpu")
        )
    finally:
        merging.logger.removeHandler(handler)
    assert not left, left
    return found
