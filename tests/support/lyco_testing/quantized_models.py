"""Tiny models of ComfyUI's own classes in every form that it stores weights in, read by its own loader."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lyco_core.formats import parse

from .comfy_models import MODELS, known_config
from .hosted import DENSE
from .tables import dotted_file

WIDTH = 256  # the formats work in groups of up to so many columns
TEXT = 48
TOKENS = 24  # packs multiply fewer than 17 rows otherwise
_AXES = [16, 56, 56]
WIDE: dict[str, dict[str, Any]] = {
    "flux1": {"axes_dim": _AXES},
    "flux2": {"axes_dim": [32] * 4, "in_channels": 128, "out_channels": 128},
    "framepack": {"axes_dim": _AXES},
    "hunyuan_video": {"axes_dim": _AXES},
    "hunyuan_video_1_5": {"axes_dim": _AXES, "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1]},
    "qwen_image": {"in_channels": 64, "attention_head_dim": 128, "axes_dims_rope": tuple(_AXES)},
    "wan": {"dim": WIDTH, "ffn_dim": 2 * WIDTH},
    "z_image": {"dim": WIDTH, "multiple_of": WIDTH, "axes_dims": [32, 48, 48]},
}
"""Architecture -> what makes `comfy_models`' config wide enough to be quantized, and able to compute."""

LATENTS: dict[str, tuple[int, ...]] = {
    "flux1": (16, 8, 8),
    "flux2": (128, 4, 4),
    "framepack": (16, 2, 8, 8),
    "hunyuan_video": (16, 2, 8, 8),
    "hunyuan_video_1_5": (32, 2, 4, 4),
    "qwen_image": (16, 1, 8, 8),
    "wan": (16, 2, 8, 8),
    "z_image": (16, 8, 8),
}
FAMILIES = tuple(LATENTS)
THREE = ("wan", "flux2", "z_image")
"""A feed-forward of two Linears, of one fused gate, of three: enough for most tests."""


@dataclasses.dataclass(frozen=True)
class Format:
    """How the Linears of a model's blocks are stored."""

    algorithm: str | None = None
    """Of comfy.quant_ops.QUANT_ALGOS; None: by hand, without a layout."""
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the layout's `quantize` is told."""
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the file says of it beside the algorithm."""
    every: int = 1
    """2: every second Linear of them, the others stay as they are."""


_SCALE = {"scale": "recalculate"}
_ROTATED = {"convrot": True, "convrot_groupsize": 256}
FORMATS: dict[str, Format] = {
    "float32": Format(),
    "bf16": Format(),
    "fp8_raw": Format(),
    "fp8_old": Format(),
    "fp8_scaled": Format("float8_e4m3fn", _SCALE),
    "fp8_scaled_full_mm": Format("float8_e4m3fn", _SCALE, {"full_precision_matrix_mult": True}),
    "fp8_mixed": Format("float8_e4m3fn", _SCALE, every=2),
    "mxfp8": Format("mxfp8"),
    "nvfp4": Format("nvfp4", _SCALE),
    "nvfp4_pre_quant": Format("nvfp4", _SCALE),
    "int8_tensor": Format("int8_tensorwise"),
    "int8_row": Format("int8_tensorwise", {"per_channel": True}),
    "int8_convrot": Format("int8_tensorwise", {"per_channel": True, **_ROTATED}, _ROTATED),
    "asym_w4a8": Format("asym_w4a8_int8", {}, {"group_size": 16, "convrot_groupsize": 256}),
    "convrot_w4a4": Format("convrot_w4a4", {"convrot_groupsize": 256}, {"convrot_groupsize": 256}),
}
FLOATS = ("float32", "bf16")
QUANTIZED = tuple(name for name in FORMATS if name not in FLOATS)


def formats() -> tuple[str, ...]:
    """Those of FORMATS that the imported ComfyUI reads."""
    return tuple(name for name in FORMATS if why_not(name) is None)


def why_not(name: str) -> str | None:
    """Why this ComfyUI cannot read a format, or None; for a test that is parametrised over FORMATS to skip by."""
    algorithm = FORMATS[name].algorithm
    if algorithm is None:
        return None
    try:
        from comfy.quant_ops import QUANT_ALGOS as known
    except ImportError:
        known = {}
    if algorithm not in known:
        return f"this ComfyUI has no {algorithm}"
    if name == "nvfp4_pre_quant" and "pre_quant_scale" not in known[algorithm]["parameters"]:
        return "this ComfyUI has no pre_quant_scale"
    return None


def base_file(folder: Path, family: str, name: str) -> tuple[Path, dict[str, Tensor]]:
    """A model's file in a format, and the numbers that it stands for, in float32."""
    tensors, metadata, numbers = _stored(family, name)
    path = folder / f"{family}_{name}.safetensors"
    save_file(tensors, path, metadata)
    return path, dict(numbers)


def load(family: str, file: Path):
    """The MODEL that ComfyUI's loader node makes of a file, where nodes run: in inference mode."""
    import comfy.sd

    with known_as(family), torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(file), model_options=_asked(file))


def reference(family: str, numbers: Mapping[str, Tensor], changes: Mapping[str, Tensor] | None = None):
    """The float32 MODEL of these numbers, plus the dense change of each module that has one."""
    import comfy.sd

    state = dict(numbers)
    for path, change in (changes or {}).items():
        state[f"{path}.weight"] = (numbers[f"{path}.weight"].double() + change).float()
    with known_as(family), torch.inference_mode():
        return comfy.sd.load_diffusion_model_state_dict(
            {key: tensor.clone() for key, tensor in state.items()}, model_options={"dtype": torch.float32}
        )


def predict(
    family: str, model, seed: int = 1, *, options: Mapping[str, Any] | None = None, load: bool = True
) -> Tensor:
    """What a MODEL predicts for a latent, in inference mode.

    options: `transformer_options`, as a sampler gives them.
    load: False where the MODEL is loaded and is to stay as it is.
    """
    import comfy.model_management

    with torch.inference_mode():
        if load:
            comfy.model_management.load_models_gpu([model])
        x, text, y = (normal(n, 1, *shape) for n, shape in ((seed, LATENTS[family]), (2, (TOKENS, TEXT)), (3, (24,))))
        more = {"c_crossattn": text, "y": y, "guidance": torch.full((1,), 3.5)}
        if family == "hunyuan_video_1_5":
            more["c_concat"] = torch.zeros(1, 33, *x.shape[2:])
        more |= {"x": x, "t": torch.tensor([0.7])}
        there = {name: tensor.to(model.load_device) for name, tensor in more.items()}
        there |= {"num_tokens": TOKENS, "transformer_options": dict(options or {})}
        return model.model.apply_model(**there).clone()


def linears(family: str) -> dict[str, tuple[int, int]]:
    """Path -> (out, in) of the Linears that the quantized formats store: those of the blocks."""
    found: dict[str, tuple[int, int]] = {}
    for name, module in _built(family).named_modules():
        shape = getattr(module, "out_features", 0), getattr(module, "in_features", 0)
        inside = "blocks." in name or name.startswith("layers.")
        if inside and shape[1] and shape[1] % WIDTH == 0 and shape[0] % 32 == 0:
            found[name] = shape
    return found


def adapter(family: str, algorithm: str = "lokr", seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of an adapter for all of `linears`, and the dense change of each of those."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dotted_file(linears(family), algorithm, lambda *shape: torch.randn(shape, generator=generator) / 3)
    found = parse(tensors, {}).adapters
    changes = {name.removeprefix("diffusion_model."): DENSE[one.algorithm](one) for name, one in found.items()}
    return tensors, changes


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def known_as(family: str):
    """ComfyUI tells a family by its full size: it is told instead."""
    import comfy.model_detection

    name, config = config_of(family)
    with mock.patch.object(comfy.model_detection, "detect_unet_config", lambda *_, **__: known_config(name, config)):
        yield


def config_of(family: str) -> tuple[str, dict[str, Any]]:
    name, config = MODELS[family]
    sizes = {"hidden_size": WIDTH} if "hidden_size" in config else {}
    return name, config | sizes | WIDE[family]


def _asked(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as tensors:
        dtype = asked_dtype(tensors.metadata() or {})
    return {} if dtype is None else {"dtype": dtype}


def asked_dtype(metadata: Mapping[str, str]) -> torch.dtype | None:
    """The loader node's `weight_dtype`: of a file of plain float8, on a CPU, ComfyUI would make float32."""
    return torch.float8_e4m3fn if metadata.get("weight_dtype") == "fp8_e4m3fn" else None


def _built(family: str):
    import comfy.ops
    import comfy.supported_models

    name, config = config_of(family)
    config = known_config(name, config)
    made = getattr(comfy.supported_models, name)(config)
    made.set_inference_dtype(torch.float32, None)
    made.custom_operations = comfy.ops.manual_cast
    return made.get_model({}, device="meta").diffusion_model


@functools.lru_cache(2)
def float_weights(family: str) -> dict[str, Tensor]:
    return unit_gain(_built(family).state_dict())


def unit_gain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 weights under which a signal passes: matrices of unit gain, norms near 1, small biases."""
    made: dict[str, Tensor] = {}
    for number, (key, tensor) in enumerate(state.items()):
        value = normal(number, *tensor.shape)
        if tensor.dim() >= 2:
            made[key] = value / tensor[0].numel() ** 0.5
        else:
            made[key] = 0.1 * value + (1.0 if key.endswith(("weight", "scale")) else 0.0)
    return made


@functools.lru_cache(2)
def _stored(family: str, name: str) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Tensor]]:
    return stored(float_weights(family), tuple(linears(family)), name)


def stored(
    weights: dict[str, Tensor], paths: Sequence[str], name: str
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Tensor]]:
    """(tensors, metadata, numbers) of a file of float32 `weights` whose Linears `paths` are in a format."""
    if name == "float32":
        return weights, {}, weights
    if name in ("bf16", "fp8_raw"):
        dtype = torch.bfloat16 if name == "bf16" else torch.float8_e4m3fn
        tensors = {key: tensor.to(dtype) for key, tensor in weights.items()}
        metadata = {"weight_dtype": "fp8_e4m3fn"} if name == "fp8_raw" else {}
        return tensors, metadata, {key: tensor.float() for key, tensor in tensors.items()}
    tensors, numbers = dict(weights), dict(weights)
    layers: dict[str, dict[str, Any]] = {}
    for number, path in enumerate(paths[:: FORMATS[name].every]):
        key = f"{path}.weight"
        made, numbers[key], layers[path] = _quantized(key, tensors.pop(key), name, number)
        tensors |= made
    metadata: dict[str, str] = {}
    if name == "fp8_old":
        tensors["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    elif name == "fp8_mixed":
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    else:
        for path, said in layers.items():
            tensors[f"{path}.comfy_quant"] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata, numbers


def _quantized(key: str, weight: Tensor, name: str, number: int):
    """(stored tensors, the numbers that they stand for, what the file says) of one weight."""
    form, stem = FORMATS[name], key.removesuffix("weight")
    if name == "fp8_old":
        scale = weight.abs().max() / 448
        codes = (weight / scale).to(torch.float8_e4m3fn)
        return {key: codes, f"{stem}scale_weight": scale}, codes.float() * scale, {}
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    said = {"format": form.algorithm, **form.said}
    layout = QUANT_ALGOS[form.algorithm]["comfy_tensor_layout"]
    before = 0.5 + torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(number))
    smoothed = name == "nvfp4_pre_quant"
    quantized = QuantizedTensor.from_float(weight / before if smoothed else weight, layout, **form.made)
    tensors, numbers = quantized.state_dict(key), quantized.dequantize().float()
    # As files have them: ComfyUI's own reader of files, with dynamic VRAM, knows no such dtype.
    powers = getattr(torch, "float8_e8m0fnu", None)
    tensors = {k: t.view(torch.uint8) if t.dtype == powers else t for k, t in tensors.items()}
    if smoothed:
        return tensors | {f"{stem}pre_quant_scale": before}, numbers * before, said
    return tensors, numbers, said
