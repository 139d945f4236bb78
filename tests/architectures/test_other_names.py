"""Names that a trainer's model has for the same modules: of Wan Animate 2, and of Anima."""

import re

import pytest
from lyco_testing.families import renamed
from lyco_testing.tables import lokr, lora, weights
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.formats import parse
from lyco_core.placement import place

WAN = "wan21_i2v_14b"


def diffsynth_file(modules: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        up, down, _ = lora(path, rows, columns).values()
        tensors |= {f"{path}.lora_B.default.weight": up, f"{path}.lora_A.default.weight": down}
    return tensors


def keys_of(tensors: dict[str, Tensor], model: str, family: str) -> set[str]:
    """The weights that a file lies on, told by itself and on the model."""
    alone = identify(parse(tensors, {}))
    modules = {key[16:-7]: shape for key, shape in weights(model).items()}
    loaded = identify(parse(tensors, {}), model_modules=modules, prefer=family)
    assert (alone.architecture, loaded.architecture) == (ARCHITECTURES[family], ARCHITECTURES[family])
    found = [place(adapter_set, weights(model)) for adapter_set in (alone, loaded)]
    assert all(placement.complete for placement in found)
    (keys,) = {frozenset(p.key for p in placement.placed) for placement in found}
    return set(keys)


@pytest.mark.parametrize("names", ["qkv", "all"])
def test_diffsynths_wan_animate_2(names: str):
    """Its example trains q, k and v of self-attention alone."""
    ours = {key: shape for key, shape in weights(WAN).items() if "blocks." in key and len(shape) == 2}
    if names == "qkv":
        ours = {key: shape for key, shape in ours.items() if ".self_attn." in key and not key.endswith(".o.weight")}
    modules = {key[16:-7]: (shape[0], shape[1]) for key, shape in ours.items()}
    wrapped = {".".join((*path.split(".")[:2], "block", *path.split(".")[2:])): s for path, s in modules.items()}
    assert keys_of(diffsynth_file(wrapped), WAN, "wan") == ours.keys()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("prefix", ["lycoris_", "transformer."])
def test_simpletuners_anima(prefix: str, fused: bool):
    """Its model is a Cosmos transformer, which it calls `core`, with the text's adapter beside it."""
    named = renamed("anima", "diffusers") | {
        path: shape for path, shape in renamed("anima", "comfyui").items() if path.startswith("llm_adapter.")
    }
    if fused:
        named = {path: shape for path, shape in named.items() if path.endswith("attn1.to_q")}
        named = {path.replace("to_q", "to_qkv"): (3 * out, inputs) for path, (out, inputs) in named.items()}
    file: dict[str, Tensor] = {}
    for path, (rows, columns) in named.items():
        name = path if path.startswith("llm_adapter.") else f"core.{path}"
        file |= lokr(prefix + (name if prefix.endswith(".") else name.replace(".", "_")), rows, columns)
    expected = {key for key, shape in weights("anima").items() if len(shape) == 2 and "llm_adapter.embed" not in key}
    if fused:
        expected = {k for k in expected if re.search(r"model\.blocks\..*\.self_attn\.[qkv]_proj", k)}
    assert keys_of(file, "anima", "cosmos_predict2") == expected
