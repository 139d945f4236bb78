"""Wan Animate 2 has Wan's image-to-video blocks under two more names: its own code's, and diffusers'."""

import math

import pytest
import torch
from lyco_testing.tables import dotted_file, lora, weights
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.formats import parse
from lyco_core.placement import place

MODEL = "wan21_i2v_14b"


def diffsynth_file(modules: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        up, down, _ = lora(path, rows, columns).values()
        tensors |= {f"{path}.lora_B.default.weight": up, f"{path}.lora_A.default.weight": down}
    return tensors


def keys_of(tensors: dict[str, Tensor]) -> set[str]:
    """The weights that a file lies on, told by itself and on the model."""
    alone = identify(parse(tensors, {}))
    loaded = identify(parse(tensors, {}), model_modules={k[16:-7]: s for k, s in weights(MODEL).items()}, prefer="wan")
    assert (alone.architecture, loaded.architecture) == (ARCHITECTURES["wan"], ARCHITECTURES["wan"])
    found = [place(adapter_set, weights(MODEL)) for adapter_set in (alone, loaded)]
    assert all(placement.complete for placement in found)
    assert len(found[0].placed) == len(alone.adapters)
    (keys,) = {frozenset(p.key for p in placement.placed) for placement in found}
    return set(keys)


@pytest.mark.parametrize("names", ["qkv", "all"])
def test_diffsynths_files(names: str):
    """Its example trains q, k and v of self-attention alone."""
    ours = {key: shape for key, shape in weights(MODEL).items() if "blocks." in key and len(shape) == 2}
    if names == "qkv":
        ours = {key: shape for key, shape in ours.items() if ".self_attn." in key and not key.endswith(".o.weight")}
    modules = {key[16:-7]: (shape[0], shape[1]) for key, shape in ours.items()}
    wrapped = {".".join((*path.split(".")[:2], "block", *path.split(".")[2:])): s for path, s in modules.items()}
    assert keys_of(diffsynth_file(wrapped)) == ours.keys()


def test_diffusers_class():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")
    if not hasattr(diffusers, "WanAnimate2Transformer3DModel"):
        pytest.skip(f"diffusers {diffusers.__version__} has no WanAnimate2Transformer3DModel")
    with torch.device("meta"):
        model = diffusers.WanAnimate2Transformer3DModel()
    modules = {
        key.removesuffix(".weight"): (weight.shape[0], math.prod(weight.shape[1:]))
        for key, weight in model.state_dict().items()
        if key.endswith(".weight") and weight.ndim == 2
    }
    found = keys_of({k.replace("diffusion_model", "transformer"): t for k, t in dotted_file(modules, "lora").items()})
    assert found == {key for key, shape in weights(MODEL).items() if len(shape) == 2}
